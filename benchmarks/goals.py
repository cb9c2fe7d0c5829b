"""What must be reached."""

from benchmarks import crowd, dashboards, insights, meter, probes, relays, rules, scrapes, stalls, webhooks
from benchmarks.bench import ENVOY, HAPROXY, NGINX, Effort
from benchmarks.report import Bound
from exporter.sources.relay import READ_SIZE


def _message(row: str, limit: float, beside: str) -> Bound:
    return Bound(f"CPU per relayed message, {row}", relays.MESSAGES, row, limit, f"x {beside}", beside)


def _event(row: str, limit: float, beside: str | None = None) -> Bound:
    unit = f"x {beside}" if beside else "µs"
    return Bound(f"CPU per reported event, {row}", webhooks.CPU, row, limit, unit, beside)


def bounds(effort: Effort) -> tuple[Bound, ...]:
    """The figures of a run of this size."""
    held, stopped = effort.idle_connections, effort.stopped_readers
    return (
        _message(relays.SMALL, 2.0, NGINX),
        _message(relays.SMALL, 1.0, ENVOY),
        _message(relays.BURSTS, 1.2, NGINX),
        _message(relays.LARGE, 0.4, NGINX),
        _message(relays.LARGE, 0.7, HAPROXY),
        _message(relays.LARGEST, 0.85, ENVOY),
        Bound("latency added at 2,000 round trips/s, p50", relays.ADDED, relays.P50, 1.2, "x nginx", NGINX),
        Bound("CPU per connection, set-up and close", relays.CONNECTIONS, relays.SET_UP_AND_CLOSE, 3, "x nginx", NGINX),
        Bound("RSS per idle connection", crowd.MEMORY, crowd.IDLE, 0.4, "x nginx", NGINX),
        Bound("RSS per idle connection", crowd.MEMORY, crowd.IDLE, 6, "KiB"),
        Bound("idle connections held", crowd.HELD, crowd.STILL_ANSWERING, held, "answer", least=True),
        Bound(
            f"RSS growth by {stopped:,} stopped readers", crowd.STOPPED, crowd.GROWN, stopped * READ_SIZE / 2**20, "MiB"
        ),
        Bound("  of it in the last 3 s", crowd.STOPPED, crowd.LATER, 1, "MiB"),
        Bound("event-loop lag during scrapes, p99", scrapes.SCRAPES, scrapes.LAG_P99, 2, "ms", column=scrapes.TEXT),
        Bound(
            "event-loop lag during gzipped scrapes, p99",
            scrapes.SCRAPES,
            scrapes.LAG_P99,
            2,
            "ms",
            column=scrapes.GZIP,
        ),
        Bound(f"frame meter, {meter.BURST_64}", meter.TITLE, meter.BURST_64, 200, "ns"),
        Bound(f"insights, {insights.OPEN}", insights.TITLE, insights.OPEN, 3.5, "µs"),
        Bound(f"insights, {insights.CLOSE}", insights.TITLE, insights.CLOSE, 3.5, "µs"),
        Bound("  memory of a client that left", insights.MEMORY, insights.LEFT, 300, "bytes"),
        Bound("from start to listening (about 0.4 s)", relays.START, relays.UNTIL_LISTENING, 450, "ms"),
        Bound("RSS at rest", relays.START, relays.RESTING, 45, "MiB"),
        _event(webhooks.SINGLE, 0.2, webhooks.PUSHGATEWAY),
        _event(webhooks.SINGLE, 0.5, webhooks.RECEIVER),
        _event(webhooks.BATCHES, 2.5),
        _event(webhooks.BATCHES, 0.35, webhooks.RECEIVER),
        _event(webhooks.LINES, 2.5),
        _event(webhooks.LINES, 0.35, webhooks.RECEIVER),
        Bound(f"  with {webhooks.FILLED:,} ids stored", webhooks.STORED, webhooks.STORED_LINES, 15, "µs"),
        Bound(
            f"RSS growth from {webhooks.LEVELS[0]:,} to {webhooks.LEVELS[-1]:,} ids stored",
            webhooks.STORED,
            webhooks.GROWTH,
            4,
            "MiB",
        ),
        Bound("longest turn of the loop, 1 MiB made to be slow", stalls.TITLE, stalls.LONGEST, 2, "ms"),
        Bound(
            f"RSS per held probe, {probes.COUNT:,} of them", probes.HELD, probes.MEMORY, 20, "KiB", column=probes.COLUMN
        ),
        Bound("  CPU of a core, pinged every 20 s", probes.HELD, probes.CPU, 0.5, "%", column=probes.COLUMN),
        Bound(
            f"all alert rules, {rules.SERVICES} services x {rules.REPLICAS} replicas",
            rules.TITLE,
            rules.ALL,
            1000,
            "ms",
            column=rules.COLUMN,
        ),
        Bound("connections in a probe's first minute", probes.RESTRAINT, probes.BUSIEST, 10, "", column=probes.COLUMN),
        *(
            Bound(
                f"slowest query of a panel, 24 h, {choice}",
                dashboards.QUERIES,
                dashboards.SLOWEST,
                500,
                "ms",
                column=choice,
            )
            for choice in dashboards.CHOICES
        ),
    )
