"""How many series there can be: the values of every label are known before the first event.

Whatever peers send, a family has at most one series for each combination of these values; the rest is folded.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Final, get_args, get_type_hints

from exporter import closecodes, events
from exporter.closecodes import Vocabulary
from exporter.metrics import catalogue
from exporter.metrics.catalogue import Metric

BORN_LATE: Final = (closecodes.RESERVED, "1015", closecodes.UNKNOWN)
"""`code` values that appear when they occur, instead of at zero."""

STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "accepted": ("101",),
    "rejected": catalogue.REJECTED_STATUSES,
    "failed": catalogue.FAILED_STATUSES,
    "refused_by_exporter": catalogue.REFUSED_BY_EXPORTER_STATUSES,
}
"""The `status` values of each `outcome` of an opening handshake."""

LIMIT_ORIGINS: Final = ("configured", "accepted", "rejected")
"""How a message size limit came to be known."""

OVERFLOWING: Final = ("code", "status")
"""Labels whose values are folded where there would be too many."""

_UNLISTED: Final = Vocabulary(frozenset(), frozenset())

VALUES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("", "source"): get_args(events.Source),
    ("", "outcome"): get_args(events.HandshakeOutcome),
    ("", "status"): tuple(status for statuses in STATUSES.values() for status in statuses),
    ("", "code"): (*_UNLISTED.labels(), *BORN_LATE),
    ("", "class"): closecodes.CLASSES,
    ("", "initiator"): events.INITIATORS,
    ("", "side"): get_args(get_type_hints(events.TransportEnd)["side"]),
    ("", "direction"): events.DIRECTIONS,
    ("", "compressed"): ("false", "true"),
    ("", "peer"): events.SIDES,
    ("", "origin"): LIMIT_ORIGINS,
    (catalogue.TRANSPORT_ENDS.name, "kind"): get_args(events.EndKind),
    (catalogue.FRAME_ANOMALIES.name, "kind"): events.ANOMALY_KINDS,
    (catalogue.UNPARSED_STREAMS.name, "reason"): events.UNPARSED_REASONS,
    (catalogue.EVENTS_DROPPED.name, "reason"): ("internal_error",),
    (catalogue.LABEL_OVERFLOW.name, "label"): OVERFLOWING,
    ("", "evidence"): events.EVIDENCES,
    ("", "after"): events.AFTERS,
    ("", "verdict"): events.VERDICTS,
    ("", "build"): (),
    (catalogue.MASS_CLOSE_RETURNS.name, "within"): events.WITHINS,
    (catalogue.BUILD_RECONNECTS.name, "within"): events.BUILD_WITHINS,
    (catalogue.PROBE_FAILURES.name, "reason"): events.PROBE_FAILURES,
    ("", "ring"): events.RINGS,
    (catalogue.CAPTURE_IGNORED.name, "reason"): events.IGNORED_REASONS,
    (catalogue.WEBHOOK_EVENTS.name, "result"): ("accepted", "duplicate", "rejected"),
    (catalogue.WEBHOOK_EVENTS.name, "reason"): ("none", *events.REJECTIONS),
}
"""The values of each label, listed codes and builds aside, by (family, label); the family is "" where all agree.

Missing are `target`, which is counted by itself, and the labels of which there is one value for each series of another
(`name`, `version`) or that other floors bound (`error`).
"""

_ADD_NOTHING: Final = (*catalogue.ORIGIN_LABELS, "class", "outcome", "name", "version")
"""A code has one class and one name, and a status belongs to one outcome."""


def values(metric: Metric, label: str) -> tuple[str, ...]:
    """The values that `label` of `metric` can have. Raises LookupError where they are not known here."""
    if metric is catalogue.CLOSE_CODE_INFO:
        return tuple(str(code) for code in closecodes.REGISTRY)
    own = VALUES.get((metric.name, label))
    return VALUES["", label] if own is None else own


def most_series(metric: Metric) -> int:
    """The most series of this family: of one source and target, if it has these labels. Listed codes, builds aside.

    Raises LookupError for a label whose values are not known here.
    """
    sets = prod(len(values(metric, label)) for label in metric.labels if label not in _ADD_NOTHING)
    return sets * (len(metric.bounds) + 3 if metric.type == "histogram" else 1)


def most_series_of(vocabularies: Iterable[Vocabulary], error_tokens: int, sources: int = 1, builds: int = 0) -> int:
    """The most series of all families of the catalogue together, for so many sources with these targets each.

    `builds` is how many client builds are listed, over all targets.
    """
    own = [metric for metric in catalogue.METRICS if metric.labels[:2] != catalogue.ORIGIN_LABELS]
    shared = [metric for metric in catalogue.METRICS if metric not in own]
    unlisted = len(_UNLISTED.labels())
    total = sum(error_tokens if metric is catalogue.HTTP_ERRORS else most_series(metric) for metric in own)
    total += sources * builds * len(events.BUILD_WITHINS)
    for vocabulary in vocabularies:
        listed = len(vocabulary.labels()) - unlisted
        total += sources * (sum(map(most_series, shared)) + listed * len(events.INITIATORS))
    return total
