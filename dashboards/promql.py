"""PromQL built from the metric catalogue, so that a misspelt name, label or label value fails the build.

Every selector is narrowed to the dashboard's variables, in one of two ways: `chosen` asks for everything that is
chosen, which is for sums; `shown` for the few services among it that rank highest, which is for what has a line or a
row for each of them. Nothing is summed over `source`: a connection seen by two sources would count twice.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.utils import floatToGoString

from exporter.metrics import bounds
from exporter.metrics.catalogue import BUILD_INFO, TARGET_CREATED, Metric, MetricType
from exporter.web.errors import ERROR_TOKENS

RATE_INTERVAL: Final = "$__rate_interval"
RANGE: Final = "$__range"

ORIGIN: Final = ("job", "target", "source")
PROCESS: Final = ("job", "instance")

MOST_SHOWN: Final = 5
"""Services with lines of their own: more are not told apart by colour, and cost Prometheus seconds for each panel."""

Labels = tuple[str, ...]
Match = str | tuple[str, ...]
"""A label's one value, or its alternatives."""

UP: Final = Metric("up", "gauge", "1 if Prometheus could scrape the exporter, else 0.")
PROCESS_MEMORY: Final = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the exporter.")
PROCESS_CPU: Final = Metric("process_cpu_seconds_total", "counter", "CPU time the exporter used.")
PROCESS_START: Final = Metric("process_start_time_seconds", "gauge", "Unix time at which the exporter started.")
ALERTS: Final = Metric(
    "ALERTS", "gauge", "1 for each pending or firing alert.", ("alertname", "alertstate", "target", "source")
)
BORROWED: Final = (UP, PROCESS_MEMORY, PROCESS_CPU, PROCESS_START, ALERTS)
"""Series that Prometheus or its client library make, in the catalogue's form."""

_SERVICE_DISCOVERY_LABELS: Final = ("job", "instance")
_VALUES: Final[Mapping[str, frozenset[str]]] = {
    "alertstate": frozenset({"pending", "firing"}),
    "error": frozenset(ERROR_TOKENS),
}
"""The values of labels that the catalogue's floor does not bound."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a query is narrowed to: the dashboard's variable for each of a metric's labels.

    Of `labels` those are narrowed that the metric has, beside what every series has from its scrape. `process` is for
    families that have no target, if anything: they are about an exporter as a whole.
    """

    labels: Mapping[str, str]
    process: Mapping[str, str]

    def selector(self, metric: Metric, kind: MetricType, **match: Match) -> str:
        """The series of `metric` in scope; of a histogram, its buckets.

        `class_` matches the label `class`. Raises ValueError if the metric is not of `kind`, and for a label or label
        value that it cannot have.
        """
        if metric.type != kind:
            raise ValueError(f"{metric.name} is a {metric.type}, not a {kind}")
        wanted = {name.rstrip("_"): value for name, value in match.items()}
        for label, value in wanted.items():
            _check_label(metric, label)
            _check_values(metric, label, value)
        own = self.labels if "target" in metric.labels else self.process
        had = (*_SERVICE_DISCOVERY_LABELS, *metric.labels)
        matchers = [_variable(label, name) for label, name in own.items() if label in had]
        matchers += [_matcher(label, value) for label, value in wanted.items()]
        suffix = "_bucket" if kind == "histogram" else ""
        return f"{metric.name}{suffix}{{{', '.join(matchers)}}}"

    def exporters(self, expr: str, within: str | None = None) -> str:
        """Those series of `expr` whose job and instance is an exporter's, or was within a time.

        Other jobs have process_* and up too, and All stands for every job there is.
        """
        known = self.selector(BUILD_INFO, "gauge")
        return f"({expr} and on (job, instance) {known if within is None else f'last_over_time({known}[{within}])'})"

    def rate(self, metric: Metric, by: Labels, **match: Match) -> str:
        """Events per second of a counter."""
        return _grouped("sum", metric, by, f"rate({self.selector(metric, 'counter', **match)}[{RATE_INTERVAL}])")

    def increase(self, metric: Metric, by: Labels, window: str, **match: Match) -> str:
        """Events of a counter within `window`."""
        return _grouped("sum", metric, by, f"increase({self.selector(metric, 'counter', **match)}[{window}])")

    def gauge(self, operator: Literal["sum", "min", "max", "avg"], metric: Metric, by: Labels, **match: Match) -> str:
        """A gauge, over replicas."""
        return _grouped(operator, metric, by, self.selector(metric, "gauge", **match))

    def observations(self, metric: Metric, by: Labels, window: str | None = None, **match: Match) -> str:
        """Observations of a histogram per second, or within `window`."""
        return _grouped("sum", metric, by, _growth(self.selector(metric, "histogram", le="+Inf", **match), window))

    def above(self, bound: float, metric: Metric, by: Labels, window: str | None = None, **match: Match) -> str:
        """Observations above one of the histogram's bounds, per second or within `window`."""
        if bound not in metric.bounds:
            raise ValueError(f"{metric.name} has no bound {bound:g}")
        below = _growth(self.selector(metric, "histogram", le=floatToGoString(bound), **match), window)
        return f"{self.observations(metric, by, window, **match)} - {_grouped('sum', metric, by, below)}"

    def quantile(self, q: float, metric: Metric, by: Labels, **match: Match) -> str:
        """The `q` quantile of a histogram; with `q` 1 the upper bound of its largest bucket in use."""
        rates = f"rate({self.selector(metric, 'histogram', **match)}[{RATE_INTERVAL}])"
        return f"histogram_quantile({q:g}, {_grouped('sum', metric, (*by, 'le'), rates)})"

    def buckets(self, metric: Metric, **match: Match) -> str:
        """Observations per bucket, for a heatmap. It can only group by `le`, so its row must repeat by source."""
        return f"sum by (le) (increase({self.selector(metric, 'histogram', **match)}[{RATE_INTERVAL}]))"


_SOURCE: Final = {"job": "job", "target": "target", "source": "source"}

chosen: Final = Scope(_SOURCE, {"job": "job"})
"""All that is chosen, be it hundreds of services."""

shown: Final = Scope(_SOURCE | {"target": "shown"}, {"job": "job", "instance": "instance"})
"""The services that rank highest among what is chosen, and the exporters that see them."""

replicas: Final = Scope(_SOURCE | {"instance": "instance"}, shown.process)
"""All that is chosen, as far as those exporters see it: for shares of what an exporter has for all of its targets."""


def highest(ranked: str) -> str:
    """Grafana's query for the targets to be shown: those with the highest values of `ranked`, those without one last.

    What each of a target's sources saw is not added up: the highest counts.
    """
    born = f"0 * {chosen.selector(TARGET_CREATED, 'gauge')}"
    return f"query_result(topk({MOST_SHOWN}, max by (target) ({ranked} or {born})))"


def alerts(state: str) -> str:
    """The product's own alerts in `state`; those that lack a target or source are never filtered out by it."""
    _check_values(ALERTS, "alertstate", state)
    optional = ", ".join(f'{label}=~"${label}|"' for label in ORIGIN if label != "job")
    return f'{ALERTS.name}{{alertname=~"WebSocket.*", alertstate="{state}", {_variable("job", "job")}, {optional}}}'


def label_values(metric: Metric, label: str, narrowed_by: Mapping[str, str]) -> str:
    """Grafana's query for the options of a variable, with each label narrowed by a variable before it."""
    for name in (label, *narrowed_by):
        _check_label(metric, name)
    matchers = ", ".join(_variable(name, variable) for name, variable in narrowed_by.items())
    return f"label_values({metric.name}{f'{{{matchers}}}' if matchers else ''}, {label})"


def _growth(counter: str, window: str | None) -> str:
    return f"rate({counter}[{RATE_INTERVAL}])" if window is None else f"increase({counter}[{window}])"


def _grouped(operator: str, metric: Metric, by: Labels, inner: str) -> str:
    for label in by:
        _check_label(metric, label)
    if "source" in metric.labels and "source" not in by:
        raise ValueError(f"{metric.name} must not be summed over source")
    return f"{operator} by ({', '.join(by)}) ({inner})"


def _variable(label: str, name: str) -> str:
    return f'{label}=~"${name}"'


def _matcher(label: str, value: Match) -> str:
    return f'{label}="{value}"' if isinstance(value, str) else f'{label}=~"{"|".join(value)}"'


def _check_label(metric: Metric, label: str) -> None:
    own = ("le",) if metric.type == "histogram" else ()
    if label not in (*metric.labels, *_SERVICE_DISCOVERY_LABELS, *own):
        raise ValueError(f"{metric.name} has no label {label}")


def _check_values(metric: Metric, label: str, match: Match) -> None:
    if label == "le":
        return  # `above` and `observations` take theirs from the metric
    for value in (match,) if isinstance(match, str) else match:
        if value not in _possible(metric, label):
            raise ValueError(f'{metric.name} never has {label}="{value}"')


def _possible(metric: Metric, label: str) -> Collection[str]:
    try:
        return _VALUES.get(label) or bounds.values(metric, label)
    except LookupError:
        return ()
