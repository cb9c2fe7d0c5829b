"""What captures of packets see, and what they miss."""

from dashboards.panels import tile, time_series
from dashboards.pieces import Heading, Panel, Query, value_map
from dashboards.promql import PROCESS, shown
from dashboards.style import ALARMING, REPLICA
from exporter.metrics import catalogue


def panels() -> list[Panel]:
    none = "no capture"
    return [
        tile(
            Heading(
                "Captures",
                "Whether every replica captures the packets of the target. down: one of them could not open its "
                "capture, and sees nothing; Captures by replica shows which, and its log says why.",
                "WebSocketCaptureDown",
            ),
            "none",
            Query(shown.gauge("min", catalogue.CAPTURE_UP, ("job", "target")), "{{job}}/{{target}}"),
            steps={0: "red", 1: "green"},
            mappings=[value_map({"0": ("down", "red"), "1": ("up", "green")})],
            nothing=none,
        ),
        tile(
            Heading(
                "Packets dropped (1 h)",
                "Packets that the kernel dropped for want of room. Of the size ring, sizes are missing and some codes "
                "unknown. Of the lifecycle ring it should be 0: there the end of a connection may be missing.",
                "WebSocketCaptureLosing",
            ),
            "short",
            Query(shown.increase(catalogue.CAPTURE_DROPS, ("job", "ring"), "1h"), "{{job}} {{ring}}"),
            decimals=0,
            steps=ALARMING,
            nothing=none,
        ),
        tile(
            Heading(
                "Bytes missed (1 h)",
                "Bytes of WebSockets that passed unseen or were not understood. Beside the bytes of Message sizes they "
                "say how much of the sizes is missing.",
                "WebSocketCaptureLosing",
            ),
            "bytes",
            Query(shown.increase(catalogue.CAPTURE_MISSED, ("job",), "1h"), "{{job}}"),
            nothing=none,
        ),
        tile(
            Heading(
                "What is captured",
                "closes alone: a replica does not look at sizes, by configuration (--capture.mode=lifecycle), or for a "
                "minute because it could not keep up; its log says which.",
                "WebSocketCaptureLosing",
            ),
            "none",
            Query(shown.gauge("max", catalogue.CAPTURE_LIFECYCLE_ONLY, ("job",)), "{{job}}"),
            mappings=[value_map({"0": ("closes and sizes", "green"), "1": ("closes alone", "orange")})],
            nothing=none,
        ),
        tile(
            Heading(
                "Connections followed",
                "TCP connections that the captures follow, of any protocol. At 200,000 for each capture no more are "
                "looked at. Far more than active WebSockets: other traffic on the port, or TLS.",
            ),
            "short",
            Query(shown.gauge("sum", catalogue.CAPTURE_CONNECTIONS, ("job",)), "{{job}}"),
            nothing=none,
        ),
        tile(
            Heading(
                "Memory of the rings",
                "What the rings take of each job's memory. The size ring doubles when packets are dropped, up to "
                "--capture.ring-size-limit: at its limit it drops more.",
            ),
            "bytes",
            Query(shown.gauge("sum", catalogue.CAPTURE_RING_BYTES, ("job", "ring")), "{{job}} {{ring}}"),
            nothing=none,
        ),
        time_series(
            Heading(
                "Captures by replica",
                "1 while a replica captures the packets of the target, 0 where it could not open its capture and runs "
                "without: its closes are not seen. It tries again when it is started again.",
                "WebSocketCaptureDown",
            ),
            "short",
            Query(
                shown.gauge("min", catalogue.CAPTURE_UP, ("job", "target", "instance")),
                "{{job}}/{{target}} on {{instance}}",
            ),
            width=6,
        ),
        time_series(
            Heading(
                "Packets dropped by ring",
                "Packets per second that the kernel dropped for want of room. A peak is a burst, and the size ring "
                "grows for it. A plateau is too little CPU: look at CPU below, and at throttling.",
                "WebSocketCaptureLosing",
            ),
            "cps",
            Query(shown.rate(catalogue.CAPTURE_DROPS, (*PROCESS, "ring")), f"{{{{ring}}}} {REPLICA}"),
            width=6,
        ),
        time_series(
            Heading(
                "Directions lost and found again",
                "Directions of WebSockets, per second, that could not be followed since bytes were missed, and those "
                "in which frames were found again. Lost without drops: packets pass by another interface, too.",
                "WebSocketCaptureLosing",
            ),
            "cps",
            Query(shown.rate(catalogue.CAPTURE_LOST, PROCESS), f"lost {REPLICA}"),
            Query(shown.rate(catalogue.CAPTURE_RESYNCS, PROCESS), f"found {REPLICA}"),
            width=6,
        ),
        time_series(
            Heading(
                "Packets not looked at",
                "Captured packets that were ignored, per second by reason. out_of_window: late repetitions, now and "
                "then; many are forged. malformed: fragments, or nonsense. too_many: over 200,000 connections.",
            ),
            "cps",
            Query(shown.rate(catalogue.CAPTURE_IGNORED, (*PROCESS, "reason")), f"{{{{reason}}}} {REPLICA}"),
            width=6,
        ),
    ]
