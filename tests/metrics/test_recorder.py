"""What the recorder makes of events, and what exists before there are any."""

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest

from exporter import __version__
from exporter.closecodes import REGISTRY, Vocabulary
from exporter.events import (
    AFTERS,
    ANOMALY_KINDS,
    DIRECTIONS,
    EVIDENCES,
    INITIATORS,
    SIDES,
    UNPARSED_REASONS,
    WITHINS,
    AnomalySeen,
    Closed,
    Event,
    HandshakeEnded,
    MassCloseLost,
    MassCloseReturned,
    MessageRefused,
    Origin,
    PingAnswered,
    Reconnected,
    StreamUnparsed,
    TransportEnd,
)
from exporter.metrics import catalogue
from exporter.metrics.recorder import Recorder
from tests.support.scraping import Page

NOW = 1_700_000_000.0
CHAT = Origin("tap", "chat")
LISTED = Vocabulary(frozenset({4001}), frozenset({3001}))
OUTCOMES = {
    "accepted": ("101",),
    "rejected": ("400", "401", "403", "404", "426", "429", "500", "502", "503", "504", "other"),
    "failed": ("refused", "closed", "timeout"),
    "refused_by_exporter": ("limit", "draining"),
}


def recorder(*error_tokens: str) -> Recorder:
    recorder = Recorder(lambda: NOW, error_tokens)
    recorder.watch(CHAT, LISTED)
    return recorder


def page(recorder: Recorder) -> Page:
    registry = CollectorRegistry()
    registry.register(recorder)
    return Page(generate_latest(registry).decode())


def labels(found: Page, name: str, *by: str) -> set[tuple[str, ...]]:
    return {tuple(sample.labels[label] for label in by) for sample in found.samples[name]}


def closed(code: str = "1000", close_class: str = "normal", **details: object) -> Closed:
    return Closed(CHAT, code, close_class, **({"initiator": "client", "duration": 1.0} | details))  # type: ignore[arg-type]


class TestBornAtZero:
    def test_closes(self) -> None:
        """Each registered wire code, 1005, 1006, invalid, 3xxx, 4xxx and each listed code, by client and by server."""
        registered = {str(code) for code in REGISTRY} - {"1015"}
        codes = registered | {"1005", "1006", "invalid", "3xxx", "4xxx", "4001", "3001"}
        found = page(recorder())
        assert labels(found, "websocket_closes_total", "code", "initiator") == set(product(codes, SIDES))
        assert found.counted("websocket_closes_total") == {}

    @pytest.mark.parametrize(
        ("code", "close_class"),
        [
            ("1000", "normal"),
            ("1001", "going_away"),
            ("1002", "protocol_error"),
            ("1005", "normal"),
            ("1006", "abnormal"),
            ("1008", "policy"),
            ("1009", "too_big"),
            ("1011", "internal_error"),
            ("1012", "going_away"),
            ("3001", "going_away"),
            ("3008", "application"),
            ("4001", "application"),
            ("4xxx", "application"),
            ("invalid", "invalid"),
        ],
    )
    def test_the_class_of_a_code(self, code: str, close_class: str) -> None:
        """The class is a function of target and code, so that it adds no series."""
        classes = {
            sample.labels["class"]
            for sample in page(recorder()).samples["websocket_closes_total"]
            if sample.labels["code"] == code
        }
        assert classes == {close_class}

    def test_handshakes(self) -> None:
        """Every outcome with every status that it can have."""
        expected = {(outcome, status) for outcome, statuses in OUTCOMES.items() for status in statuses}
        assert labels(page(recorder()), "websocket_handshakes_total", "outcome", "status") == expected

    def test_histograms(self) -> None:
        """Every histogram of a target, by whatever else it is split."""
        found = page(recorder())
        for name in ("websocket_handshake_duration_seconds", "websocket_connection_duration_seconds"):
            assert labels(found, f"{name}_count", "source", "target") == {("tap", "chat")}
        assert labels(found, "websocket_ping_rtt_seconds_count", "peer") == {("client",), ("server",)}
        assert labels(found, "websocket_message_size_bytes_count", "direction", "compressed") == set(
            product(("client_to_server", "server_to_client"), ("false", "true"))
        )
        assert found.value("websocket_exporter_event_loop_lag_seconds_count") == 0

    def test_what_is_known_of_this_process(self) -> None:
        """Reasons, kinds and tokens are all there; the version, and that the configuration was loaded."""
        found = page(recorder("not_found", "internal_error"))
        assert labels(found, "websocket_exporter_unparsed_streams_total", "reason") == {(r,) for r in UNPARSED_REASONS}
        assert labels(found, "websocket_exporter_frame_anomalies_total", "kind") == {(k,) for k in ANOMALY_KINDS}
        assert labels(found, "websocket_exporter_label_overflow_total", "label") == {("code",), ("status",)}
        assert labels(found, "websocket_exporter_http_errors_total", "error") == {("not_found",), ("internal_error",)}
        assert labels(found, "websocket_exporter_build_info", "version") == {(__version__,)}
        assert found.value("websocket_exporter_config_last_reload_successful") == 1
        assert found.value("websocket_exporter_config_last_reload_success_timestamp_seconds") == NOW

    def test_names_of_the_codes(self) -> None:
        """Every code that the knowledge base lists has a name for tables, those never on the wire too."""
        names = labels(page(recorder()), "websocket_close_code_info", "code", "name")
        assert ("1009", "Message Too Big") in names
        assert {code for code, _ in names} == {str(code) for code in REGISTRY}

    def test_when_counting_began(self) -> None:
        """A target that is watched again, as after a reload, keeps the moment at which its counters began."""
        moments = iter((1.0, 2.0, 3.0))
        recorder = Recorder(lambda: next(moments))
        recorder.watch(CHAT, LISTED)
        recorder.watch(CHAT, LISTED)
        assert page(recorder).value("websocket_target_created_timestamp_seconds") == 2.0


class TestCounting:
    def test_a_connection(self) -> None:
        """Accepted, then closed: both counted, open in between, with the time that each took."""
        counting = recorder()
        counting.emit(HandshakeEnded(CHAT, "accepted", "101", 0.02))
        assert page(counting).value("websocket_connections_active", target="chat") == 1
        counting.emit(closed("1009", "too_big", initiator="server", transport_end=TransportEnd("server", "reset")))
        found = page(counting)
        assert found.value("websocket_connections_active") == 0
        assert found.counted("websocket_closes_total", "source", "target", "code", "class", "initiator") == {
            ("tap", "chat", "1009", "too_big", "server"): 1
        }
        assert found.counted("websocket_transport_ends_total", "side", "kind") == {("server", "reset"): 1}
        assert found.value("websocket_handshake_duration_seconds_bucket", le="0.025") == 1
        assert found.value("websocket_handshake_duration_seconds_bucket", le="0.01") == 0
        assert found.value("websocket_connection_duration_seconds_sum") == 1.0

    def test_a_handshake_without_an_answer(self) -> None:
        """It is counted, and adds neither a duration nor an open connection, however long it took to fail."""
        counting = recorder()
        counting.emit(HandshakeEnded(CHAT, "failed", "refused", 5.0))
        found = page(counting)
        assert found.counted("websocket_handshakes_total", "outcome", "status") == {("failed", "refused"): 1}
        assert found.value("websocket_handshake_duration_seconds_count") == 0
        assert found.value("websocket_connections_active") == 0

    def test_what_was_folded(self) -> None:
        """A value that lost its own label to keep them bounded is counted by label."""
        counting = recorder()
        for code in ("reserved", "3xxx", "4xxx", "invalid", "1000", "4001"):
            counting.emit(closed(code, "application"))
        counting.emit(HandshakeEnded(CHAT, "rejected", "other", 0.1))
        assert page(counting).counted("websocket_exporter_label_overflow_total", "label") == {
            ("code",): 3,
            ("status",): 1,
        }

    def test_pings_anomalies_and_streams(self) -> None:
        """Each event counts where it belongs."""
        counting = recorder()
        counting.emit(PingAnswered(CHAT, "server", 0.003))
        counting.emit(AnomalySeen(CHAT, "client", "wrong_masking"))
        counting.emit(StreamUnparsed(CHAT, "tls"))
        counting.http_error("not_found")
        counting.loop_woke(0.003)
        found = page(counting)
        assert found.counted("websocket_ping_rtt_seconds_count", "peer") == {("server",): 1}
        assert found.counted("websocket_exporter_frame_anomalies_total", "kind") == {("wrong_masking",): 1}
        assert found.counted("websocket_exporter_unparsed_streams_total", "reason") == {("tls",): 1}
        assert found.counted("websocket_exporter_http_errors_total", "error") == {("not_found",): 1}
        assert found.value("websocket_exporter_event_loop_lag_seconds_bucket", le="0.005") == 1

    def test_message_sizes(self) -> None:
        """Sizes that a meter put into a watch's buckets show under that target, direction and compression."""
        counting = recorder()
        watch = counting.watch(CHAT, LISTED)
        watch.client_to_server.plain.add(1024)
        watch.server_to_client.compressed.add(100)
        counting.watch(CHAT, LISTED).client_to_server.plain.add(1025)
        found = page(counting)
        sizes = {"direction": "client_to_server", "compressed": "false"}
        assert found.value("websocket_message_size_bytes_bucket", le="1024.0", **sizes) == 1
        assert found.value("websocket_message_size_bytes_bucket", le="2048.0", **sizes) == 2
        assert found.value("websocket_message_size_bytes_sum", **sizes) == 2049
        assert found.value("websocket_message_size_bytes_count", compressed="true") == 1

    def test_what_is_asked_at_each_scrape(self) -> None:
        """Bytes that the tap holds and log lines that were lost are those of the moment."""
        counting = recorder()
        counting.buffered_bytes = lambda: 4096
        counting.dropped_lines = lambda: 3
        found = page(counting)
        assert found.value("websocket_exporter_tap_buffered_bytes") == 4096
        assert found.value("websocket_exporter_log_lines_dropped_total") == 3

    def test_a_reload(self) -> None:
        """A failed one leaves the time of the last that succeeded."""
        moments = iter((1.0, 5.0))
        counting = Recorder(lambda: next(moments))
        counting.config_loaded(successful=False)
        found = page(counting)
        assert found.value("websocket_exporter_config_last_reload_successful") == 0
        assert found.value("websocket_exporter_config_last_reload_success_timestamp_seconds") == 1.0
        counting.config_loaded(successful=True)
        assert page(counting).value("websocket_exporter_config_last_reload_success_timestamp_seconds") == 5.0


EVENTS = st.one_of(
    st.sampled_from([(outcome, status) for outcome, statuses in OUTCOMES.items() for status in statuses]).map(
        lambda given: HandshakeEnded(CHAT, given[0], given[1], 0.1)  # type: ignore[arg-type]
    ),
    st.builds(
        lambda code, initiator, duration: Closed(CHAT, code, LISTED.close_class(code), initiator, duration),
        st.sampled_from((*LISTED.labels(), "reserved", "unknown")),
        st.sampled_from(INITIATORS),
        st.floats(0, 1e6),
    ),
    st.builds(PingAnswered, st.just(CHAT), st.sampled_from(SIDES), st.floats(0, 100)),
    st.builds(AnomalySeen, st.just(CHAT), st.sampled_from(SIDES), st.sampled_from(ANOMALY_KINDS)),
    st.builds(StreamUnparsed, st.just(CHAT), st.sampled_from(UNPARSED_REASONS)),
    st.builds(Reconnected, st.just(CHAT), st.sampled_from(AFTERS), st.one_of(st.none(), st.floats(0, 600))),
    st.builds(MassCloseLost, st.just(CHAT), st.integers(1, 10_000)),
    st.builds(MassCloseReturned, st.just(CHAT), st.sampled_from(WITHINS)),
    st.builds(
        MessageRefused, st.just(CHAT), st.sampled_from(DIRECTIONS), st.sampled_from(EVIDENCES), st.integers(1, 1 << 63)
    ),
)


def counters(families: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    """Everything that may never go down."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        if family.type in ("counter", "histogram")
        for sample in family.samples
    }


@given(st.lists(EVENTS, max_size=20))
def test_counters_never_go_down(events: list[Event]) -> None:
    """Whatever happens, no counter and no bucket decreases or vanishes, and each event is counted."""
    counting = recorder()
    before = counters(counting.collect())
    for event in events:
        counting.emit(event)
        now = counters(counting.collect())
        assert before.keys() <= now.keys()
        assert all(now[series] >= value for series, value in before.items())
        assert sum(now.values()) > sum(before.values())
        before = now


def test_a_scrape_is_one_moment() -> None:
    """Families are built one by one, and all show the moment at which the scrape began."""
    counting = recorder()
    counting.emit(HandshakeEnded(CHAT, "accepted", "101", 0.1))
    watch = counting.watch(CHAT, LISTED)
    counting.message_size_limit(CHAT, "client_to_server", 1000)
    families = counting.collect()
    found = {}
    for family in families:
        counting.emit(closed(transport_end=TransportEnd("client", "fin")))
        counting.emit(PingAnswered(CHAT, "client", 0.1))
        counting.emit(StreamUnparsed(CHAT, "tls"))
        watch.client_to_server.plain.add(100)
        found[family.name] = family
    assert [*found] == [metric.name.removesuffix("_total") for metric in catalogue.METRICS]
    later = counters(found.values())
    assert later.pop(("websocket_handshakes_total", "tap", "chat", "accepted", "101")) == 1
    began = {series: value for series, value in later.items() if value}
    assert {series[0] for series in began} == {
        "websocket_handshake_duration_seconds_bucket",
        "websocket_handshake_duration_seconds_count",
        "websocket_handshake_duration_seconds_sum",
    }


def test_a_refusal_without_a_plain_size_is_no_size() -> None:
    """Whose size is not known, or of a compressed message, is not in the histogram, but counts as a repeat."""
    counting = recorder()
    for size, compressed in ((0, False), (5000, True), (5000, False)):
        counting.emit(MessageRefused(CHAT, "client_to_server", "close_1009", size, compressed, repeated=True))
    found = page(counting)
    assert found.value("websocket_oversize_message_size_bytes_count") == 1
    assert found.value("websocket_oversize_message_size_bytes_sum") == 5000
    assert found.counted("websocket_too_big_repeats_total", "evidence") == {("close_1009",): 3}
