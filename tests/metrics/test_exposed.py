"""The catalogue against the real /metrics of an exporter that relayed real traffic, and against hostile peers."""

import asyncio
import subprocess
from itertools import product
from random import Random
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from exporter.closecodes import Vocabulary
from exporter.config import Address, CaptureConfig, Limits, Target
from exporter.config.probes import parse_probe_flag
from exporter.events import ANOMALY_KINDS, INITIATORS, SIDES, Origin
from exporter.metrics.catalogue import METRICS, Metric
from exporter.metrics.recorder import Recorder
from exporter.wire.connection import ConnectionObserver
from tests.support.loops import conversation
from tests.support.peers import connected
from tests.support.scraping import Page, fetch
from tests.support.services import service
from tests.support.watching import LOOPBACK, Watched, watching
from tests.wire.support import CLOSE, KEY, accepts, asks, frame, head

HOSTILE: Final = 10_000
CHAT: Final = Origin("tap", "chat")
LIMITED: Final = Target("chat", limits=Limits(client_to_server=1 << 20), client_builds=("acme-app/*",))
VOCABULARY: Final = Vocabulary(frozenset({4001}), frozenset({3001}))

# Each exposed bound as prometheus_client spells it, which is what rules and panels must name.
SPELLED: Final = {
    "websocket_message_size_bytes": (
        "128.0 1024.0 2048.0 4096.0 8192.0 16384.0 32768.0 65536.0 131072.0 262144.0 524288.0 1.048576e+06 "
        "2.097152e+06 4.194304e+06 8.388608e+06 1.6777216e+07 6.7108864e+07 +Inf"
    ),
    "websocket_oversize_message_size_bytes": (
        "128.0 1024.0 2048.0 4096.0 8192.0 16384.0 32768.0 65536.0 131072.0 262144.0 524288.0 1.048576e+06 "
        "2.097152e+06 4.194304e+06 8.388608e+06 1.6777216e+07 6.7108864e+07 +Inf"
    ),
    "websocket_message_limit_ratio": "0.1 0.25 0.5 0.8 0.9 0.95 1.0 +Inf",
    "websocket_reconnect_delay_seconds": "0.1 0.5 1.0 2.0 5.0 10.0 15.0 30.0 60.0 120.0 300.0 600.0 +Inf",
    "websocket_handshake_duration_seconds": ("0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 +Inf"),
    "websocket_probe_connect_duration_seconds": ("0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 +Inf"),
    "websocket_connection_duration_seconds": ("0.1 1.0 5.0 15.0 60.0 300.0 900.0 3600.0 14400.0 43200.0 86400.0 +Inf"),
    "websocket_ping_rtt_seconds": "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 +Inf",
    "websocket_exporter_event_loop_lag_seconds": "0.0005 0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.5 1.0 5.0 +Inf",
}


def everything(upstream: Address) -> dict[str, Any]:
    """Settings for each source that there is, beside the tap."""
    return {
        "webhook_listen_address": LOOPBACK,
        "probe": (parse_probe_flag(f"chat=ws://{upstream}/"),),
        "capture": (CaptureConfig("lo", upstream.port, "chat"),),
        "capture_optional": True,
    }


async def some_traffic(watched: Watched) -> None:
    """A WebSocket with messages and a Ping, something that is no HTTP, and a page that does not exist."""
    async with connect(watched.url) as connection:
        await connection.send("hello")
        await connection.recv()
        await (await connection.ping())
    with await connected(watched.address) as client:
        await client.send(b"\x16\x03\x01")
        await fetch(watched.app.web_address, "/nowhere")
    await watched.closes()
    await watched.page(lambda page: page.value("websocket_exporter_unparsed_streams_total") > 0)
    await watched.page(lambda page: page.value("websocket_exporter_event_loop_lag_seconds_count") > 0)


def exposed_name(metric: Metric) -> str:
    """The family's name as prometheus_client's parser gives it."""
    return metric.name.removesuffix("_total")


@conversation
async def test_the_catalogue_is_what_is_exposed() -> None:
    """Each family is there with its type, help, labels and bounds, in the catalogue's order, and no other of ours."""
    async with service() as (_, upstream), watching(upstream, LIMITED, **everything(upstream)) as watched:
        await some_traffic(watched)
        page = await watched.scrape()
        ours = [name for name in page.families if name.startswith("websocket_")]
        assert ours == [exposed_name(metric) for metric in METRICS]
        for metric in METRICS:
            family = page.families[exposed_name(metric)]
            assert (family.type, family.documentation) == (metric.type, metric.help)
            assert family.samples, metric.name
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.labels)
        for metric in METRICS:
            if metric.type == "histogram":
                bounds = list(dict.fromkeys(sample.labels["le"] for sample in page.samples[f"{metric.name}_bucket"]))
                assert bounds == SPELLED[metric.name].split()
                assert [float(bound) for bound in bounds] == [*metric.bounds, float("inf")]


@conversation
async def test_no_created_series() -> None:
    """Neither format has `_created` series; OpenMetrics is parsed whole by a parser of its own."""
    async with service() as (_, upstream), watching(upstream, LIMITED, **everything(upstream)) as watched:
        await some_traffic(watched)
        accept = "Accept: application/openmetrics-text; version=1.0.0"
        status, openmetrics = await fetch(watched.app.web_address, "/metrics", "GET", accept)
        assert status == 200
        names = {sample.name for family in text_string_to_metric_families(openmetrics) for sample in family.samples}
        assert {metric.name for metric in METRICS if metric.type != "histogram"} <= names
        classic = await watched.scrape()
        assert not [name for name in (*names, *classic.samples) if name.endswith("_created")]


@pytest.mark.needs("promtool")
@conversation
async def test_promtool_has_no_complaint() -> None:
    """Prometheus' own linter finds nothing wrong with names, types and help of the page."""
    async with service() as (_, upstream), watching(upstream) as watched:
        await some_traffic(watched)
        page = (await watched.scrape()).text
        process = await asyncio.create_subprocess_exec(
            "promtool", "check", "metrics", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        complaints, _ = await process.communicate(page.encode())
        assert (complaints.decode(), process.returncode) == ("", 0)


def text(random: Random) -> str:
    """What a peer may send as a field value or a path: anything but control characters."""
    return "".join(chr(random.choice((random.randint(0x21, 0x7E), random.randint(0xA1, 0xFF)))) for _ in range(20))


def connection(recorder: Recorder, random: Random) -> None:
    """A client with a name, a path, a status, a code and a reason that nobody has seen before."""
    watch = recorder.watch(CHAT, VOCABULARY)
    observer = ConnectionObserver(lambda _: watch, origin=CHAT, sink=recorder, clock=lambda: 0.0)
    _, request = asks(f"GET /{text(random)} HTTP/1.1", User_Agent=text(random), Host=text(random))
    _, response = accepts()
    status = random.randint(200, 999)
    observer.from_client(request)
    if random.random() < 0.2:
        observer.from_server(head(f"HTTP/1.1 {status} {text(random)}", "Content-Length: 0"))
    else:
        observer.from_server(response)
        observer.from_client(frame(random.randint(0, 15), length=random.randint(0, 1 << 40), rsv=random.randint(0, 7)))
        code = random.choice((random.randint(0, 65535), random.randint(2900, 5100)))
        observer.from_server(frame(CLOSE, code.to_bytes(2) + random.randbytes(random.randint(0, 140))))
        observer.from_client(frame(CLOSE, random.randbytes(random.randint(0, 4)), key=KEY))
    observer.transport_ended(random.choice(SIDES), random.choice(("fin", "reset", "timeout", "error")))
    observer.finish()


def test_hostile_peers_add_no_series() -> None:
    """Ten thousand codes, paths, hosts and user agents later the labels are those that were possible before."""
    recorder = Recorder(lambda: 0.0)
    random = Random(1009)
    recorder.watch(CHAT, VOCABULARY)
    born = len(series(recorder))
    for _ in range(HOSTILE):
        connection(recorder, random)
    page = exposed(recorder)
    codes = {*VOCABULARY.labels(), "reserved", "unknown"}
    classes = {code: VOCABULARY.close_class(code) for code in codes}
    for sample in page.samples["websocket_closes_total"]:
        assert classes[sample.labels["code"]] == sample.labels["class"]
        assert sample.labels["initiator"] in INITIATORS
    assert {labels for (labels,) in page.counted("websocket_exporter_frame_anomalies_total", "kind")} <= {
        *ANOMALY_KINDS
    }
    assert page.value("websocket_exporter_label_overflow_total", label="code") > 0
    assert page.value("websocket_exporter_label_overflow_total", label="status") > 0
    possible = born + len(list(product(("reserved", "unknown"), INITIATORS))) + len(list(product(SIDES, "te")))
    assert len(series(recorder)) <= possible
    total = page.value("websocket_handshakes_total", outcome="accepted")
    assert page.value("websocket_closes_total") == total
    assert total + page.value("websocket_handshakes_total", outcome="rejected") == HOSTILE


def exposed(recorder: Recorder) -> Page:
    registry = CollectorRegistry()
    registry.register(recorder)
    return Page(generate_latest(registry).decode())


def series(recorder: Recorder) -> list[tuple[str, ...]]:
    return [(sample.name, *sample.labels.items()) for family in recorder.collect() for sample in family.samples]  # type: ignore[arg-type]
