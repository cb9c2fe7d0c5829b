"""Whether the exporter is well, and what it could not understand."""

from dashboards import promql
from dashboards.panels import FEW_POINTS, tile, time_series
from dashboards.pieces import Heading, Panel, Query, value_map
from dashboards.promql import PROCESS, shown
from dashboards.style import REPLICA
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    return [
        time_series(
            Heading(
                "Memory",
                "Resident memory of each exporter process. It grows with open connections, by a few KiB each; growth "
                "while they stay level is a leak, or peers that do not read: see Buffered bytes.",
            ),
            "bytes",
            Query(shown.exporters(shown.gauge("sum", promql.PROCESS_MEMORY, PROCESS)), REPLICA),
            width=6,
        ),
        time_series(
            Heading(
                "CPU",
                "Share of one core, which is all that the exporter uses. Above 80 % a tap delays messages and a "
                "capture drops packets: split the traffic over more replicas.",
            ),
            "percentunit",
            Query(shown.exporters(shown.rate(promql.PROCESS_CPU, PROCESS)), REPLICA),
            width=6,
        ),
        time_series(
            Heading(
                "Event loop lag",
                "How late the event loop woke up: what the exporter may add to a message's way. Above 10 ms something "
                "blocks it or its CPU is throttled.",
            ),
            "s",
            *(
                Query(shown.quantile(q, catalogue.LOOP_LAG, PROCESS), f"{name} {REPLICA}")
                for q, name in ((0.99, "p99"), (1, "largest"))
            ),
            width=6,
            log_base=10,
        ),
        time_series(
            Heading(
                "Buffered bytes",
                "What the tap holds for peers that do not read. It is bounded per connection; a plateau is slow "
                "readers, and the sender feels it as backpressure, as it would without the tap.",
            ),
            "bytes",
            Query(shown.gauge("sum", catalogue.TAP_BUFFERED, PROCESS), REPLICA),
            width=6,
        ),
        time_series(
            Heading(
                "Streams not understood",
                "Tapped or captured connections that are not understood, per second by reason: their closes and "
                "messages are not counted. tls: it sits on the wrong side of TLS termination. not_http, http2: other "
                "traffic on the port. packets_missed: see Captured packets. internal_error: a fault of the exporter, "
                "worth a report.",
            ),
            "cps",
            Query(shown.rate(catalogue.UNPARSED_STREAMS, (*PROCESS, "reason")), f"{{{{reason}}}} {REPLICA}"),
            width=6,
        ),
        time_series(
            Heading(
                "Frame anomalies",
                "Frames that RFC 6455 forbids, passed on all the same, per second by kind. Zero is normal. Steady ones "
                "name a peer's library or a proxy that breaks the protocol, often just before 1002 closes.",
            ),
            "cps",
            Query(shown.rate(catalogue.FRAME_ANOMALIES, (*PROCESS, "kind")), f"{{{{kind}}}} {REPLICA}"),
            width=6,
        ),
        time_series(
            Heading(
                "Errors and folded labels",
                "Requests to the exporter's own listeners that it answered with an error, and values folded into "
                "other, 3xxx or 4xxx. Folded close codes worth telling apart belong into the target's codes.",
            ),
            "cps",
            Query(shown.rate(catalogue.HTTP_ERRORS, (*PROCESS, "error")), f"HTTP {{{{error}}}} {REPLICA}"),
            Query(shown.rate(catalogue.LABEL_OVERFLOW, (*PROCESS, "label")), f"folded {{{{label}}}} {REPLICA}"),
            width=6,
            points=FEW_POINTS,
        ),
        time_series(
            Heading(
                "Log lines and events dropped",
                "Log lines lost, per second, because whoever reads the log does not keep up: what is counted is right "
                "all the same; the lines that tell which client it was are missing. Events whose effect was lost by a "
                "fault of the exporter: some number is too low, and the log has the fault, which is worth a report.",
            ),
            "cps",
            Query(shown.rate(catalogue.LOG_LINES_DROPPED, PROCESS), f"lines {REPLICA}"),
            Query(shown.rate(catalogue.EVENTS_DROPPED, (*PROCESS, "reason")), f"events {{{{reason}}}} {REPLICA}"),
            width=6,
        ),
        tile(
            Heading(
                "Configuration",
                "Whether every replica loaded its configuration file without a fault. rejected: the old configuration "
                "is still in force; the log names the fault.",
            ),
            "none",
            Query(shown.gauge("min", catalogue.RELOAD_SUCCESSFUL, ("job",)), "{{job}}"),
            width=12,
            steps={0: "red", 1: "green"},
            mappings=[value_map({"0": ("rejected", "red"), "1": ("loaded", "green")})],
        ),
        tile(
            Heading(
                "Replicas by version",
                "How many replicas run each version. Two versions at once: a rollout is under way, or stuck.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.BUILD_INFO, ("job", "version")), "{{job}} {{version}}"),
            width=12,
        ),
    ]
