"""What two witnesses count of the same connections, made comparable."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric

Series = Counter[tuple[str, frozenset[tuple[str, str]]]]
"""Values by name and labels, the source left out."""

CUMULATIVE: Final = ("counter", "histogram")
SECONDS: Final = ("_seconds_bucket", "_seconds_sum")
"""How long something took is not the same for two who look from different places; how often it was, is."""

SHARED: Final = "websocket_exporter_frame_anomalies_total"
"""Has no label `source`: everybody who sees an anomaly counts it here."""


def series(families: Iterable[Metric], source: str) -> Series:
    """Everything that `source` has counted. Gauges are of the moment, and left out."""
    found: Series = Counter()
    for family in families:
        if family.type not in CUMULATIVE:
            continue
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("source", None) == source and not sample.name.endswith(SECONDS):
                found[sample.name, frozenset(labels.items())] += sample.value  # type: ignore[assignment]
    return found


def anomalies(families: Iterable[Metric]) -> Counter[str]:
    """Forbidden frames by kind, whoever saw them."""
    found: Counter[str] = Counter()
    for family in families:
        for sample in family.samples:
            if sample.name == SHARED:
                found[sample.labels["kind"]] += int(sample.value)
    return found


def grown(now: Series, before: Series) -> dict[str, float]:
    """By how much what has grown did, spelled as series are."""
    return {_spelled(*key): value - before[key] for key, value in now.items() if value != before[key]}


def differences(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Where two disagree: what each has counted."""
    keys = sorted({*ours, *theirs})
    pairs = {key: (ours.get(key, 0.0), theirs.get(key, 0.0)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _spelled(name: str, labels: frozenset[tuple[str, str]]) -> str:
    return f"{name}{{{', '.join(f'{label}={value}' for label, value in sorted(labels))}}}"
