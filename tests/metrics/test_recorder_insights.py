"""What the recorder makes of what the insights say, and what exists before they say anything."""

from collections.abc import Iterable
from itertools import product

import pytest

from exporter.events import (
    AFTERS,
    BUILD_WITHINS,
    DIRECTIONS,
    EVIDENCES,
    VERDICTS,
    WITHINS,
    Bracket,
    Ending,
    Evidence,
    MassClose,
    MassCloseEnded,
    MassCloseLost,
    MassCloseReturned,
    MessageRefused,
    Origin,
    Passing,
    Reconnected,
    Standing,
    Verdict,
)
from exporter.metrics.recorder import LARGEST_REFUSED, Recorder
from tests.metrics.test_recorder import CHAT, LISTED, NOW, counters, labels, page

FEED = Origin("tap", "feed")
REPORTED = Origin("webhook", "chat")
BUILDS = ("acme-app/*", "okhttp/*")
GAUGES = (
    "websocket_handshakes_last_minute",
    "websocket_handshakes_peak_per_second",
    "websocket_mass_close_active",
    "websocket_client_key_shared_connections",
    "websocket_too_big_stuck_clients",
)
DELAY = "websocket_reconnect_delay_seconds"
OVERSIZE = "websocket_oversize_message_size_bytes"
RATIO = "websocket_message_limit_ratio"
LIMIT = "websocket_message_size_limit_bytes"


def recorder(builds: Iterable[str] = BUILDS) -> Recorder:
    recorder = Recorder(lambda: NOW)
    recorder.watch(CHAT, LISTED, builds)
    recorder.watch_reports("chat", LISTED, builds=builds)
    return recorder


def mass_close(verdict: Verdict) -> MassClose:
    return MassClose(CHAT, verdict, 30.0, 9, {("1001", "server"): 9}, 9, 9, {"1s": 9}, 9, 9, 0, 0.5, False)


@pytest.mark.parametrize("source", ["tap", "webhook"])
class TestBornAtZero:
    """For what the tap sees and for what is reported alike: both feed the insights."""

    @pytest.mark.parametrize(
        ("name", "by", "values"),
        [
            ("websocket_reconnects_total", ("after",), [*product(AFTERS)]),
            (f"{DELAY}_count", ("after",), [*product(AFTERS)]),
            ("websocket_mass_closes_total", ("verdict",), [*product(VERDICTS)]),
            ("websocket_mass_close_returns_total", ("within",), [*product(WITHINS)]),
            ("websocket_mass_close_connections_total", (), [()]),
            ("websocket_too_big_repeats_total", ("evidence",), [*product(EVIDENCES)]),
            (f"{OVERSIZE}_count", ("direction", "evidence"), [*product(DIRECTIONS, EVIDENCES)]),
            ("websocket_client_build_reconnects_total", ("build", "within"), [*product(BUILDS, BUILD_WITHINS)]),
            *((name, (), [()]) for name in GAUGES),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_every_value(self, source: str, name: str, by: tuple[str, ...], values: Iterable[tuple[str, ...]]) -> None:
        """Each value of each label has its series, at 0."""
        found = page(recorder())
        expected = {(source, "chat", *value) for value in values}
        assert {one for one in labels(found, name, "source", "target", *by) if one[0] == source} == expected
        assert found.value(name) == 0

    def test_a_build_needs_to_be_listed(self, source: str) -> None:
        """User agents are no labels by themselves."""
        found = page(recorder(()))
        assert not labels(found, "websocket_client_build_reconnects_total", "source") & {(source,)}

    def test_watching_again_keeps_what_was_counted(self, source: str) -> None:
        """As a reload does."""
        origin = CHAT if source == "tap" else REPORTED
        counting = recorder()
        counting.emit(Reconnected(origin, "other", 2.0, "okhttp/*"))
        before = counters(counting.collect())
        counting.watch(CHAT, LISTED, BUILDS)
        counting.watch_reports("chat", LISTED, builds=BUILDS)
        assert counters(counting.collect()) == before


def test_an_ending_is_not_counted() -> None:
    """Its Closed is, once."""
    counting = recorder()
    before = counters(counting.collect())
    counting.emit(Ending(CHAT, "1001", "going_away", "server", Passing(1, 2, 3)))
    assert counters(counting.collect()) == before


@pytest.mark.parametrize(
    ("delay", "bucket", "within"),
    [
        (0.0, "0.1", "1s"),
        (0.1, "0.1", "1s"),
        (1.0, "1.0", "1s"),
        (1.001, "2.0", "5s"),
        (5.0, "5.0", "5s"),
        (5.1, "10.0", "30s"),
        (30.0, "30.0", "30s"),
        (30.1, "60.0", "more"),
        (600.0, "600.0", "more"),
    ],
)
def test_a_client_came_back(delay: float, bucket: str, within: str) -> None:
    """Counted by what kind of close it comes back after; its delay too, and that of its build if it has one."""
    counting = recorder()
    counting.emit(Reconnected(CHAT, "going_away", delay, "acme-app/*"))
    counting.emit(Reconnected(CHAT, "going_away", delay))
    found = page(counting)
    assert found.counted("websocket_reconnects_total", "source", "target", "after") == {
        ("tap", "chat", "going_away"): 2
    }
    assert found.value(f"{DELAY}_sum", after="going_away") == 2 * delay
    buckets = [sample.labels["le"] for sample in found.samples[f"{DELAY}_bucket"] if sample.value]
    assert buckets[0] == bucket
    assert found.counted("websocket_client_build_reconnects_total", "build", "within") == {("acme-app/*", within): 1}


def test_a_client_whose_key_is_shared_came_back() -> None:
    """It is counted without a delay, and so is in none of its build's."""
    counting = recorder()
    counting.emit(Reconnected(CHAT, "abnormal", None, "acme-app/*"))
    found = page(counting)
    assert found.value("websocket_reconnects_total", after="abnormal") == 1
    assert found.value(f"{DELAY}_count") == found.value("websocket_client_build_reconnects_total") == 0


def test_a_mass_close() -> None:
    """What was lost adds up while it lasts, each return counts once, and at the end it gets one verdict."""
    counting = recorder()
    counting.emit(MassCloseLost(CHAT, 5))
    counting.emit(MassCloseLost(CHAT, 4))
    for within in WITHINS:
        counting.emit(MassCloseReturned(CHAT, within))
    counting.emit(MassCloseReturned(CHAT, "30s"))
    for verdict in VERDICTS:
        counting.emit(MassCloseEnded(mass_close(verdict)))
    found = page(counting)
    assert found.counted("websocket_mass_close_connections_total", "source", "target") == {("tap", "chat"): 9}
    returned = {(within,): 1 + (within == "30s") for within in WITHINS}
    assert found.counted("websocket_mass_close_returns_total", "within") == returned
    assert found.counted("websocket_mass_closes_total", "verdict") == {(verdict,): 1 for verdict in VERDICTS}


def test_returns_of_a_mass_close() -> None:
    """All that were accepted again, whenever that was."""
    assert mass_close("healthy").returns == 9


class TestRefused:
    @pytest.mark.parametrize("evidence", EVIDENCES)
    def test_its_size(self, evidence: Evidence) -> None:
        """By direction and by what shows it; certain and suspected are never one number."""
        counting = recorder()
        counting.emit(MessageRefused(CHAT, "client_to_server", evidence, 1 << 20))
        found = page(counting)
        assert found.counted(f"{OVERSIZE}_count", "source", "direction", "evidence") == {
            ("tap", "client_to_server", evidence): 1
        }
        assert found.value(f"{OVERSIZE}_bucket", le="1.048576e+06") == 1
        assert found.value(f"{OVERSIZE}_sum") == 1 << 20
        assert found.value("websocket_too_big_repeats_total") == 0

    @pytest.mark.parametrize(("size", "total"), [(1 << 30, 1 << 30), ((1 << 30) + 1, 1 << 30), (1 << 63, 1 << 30)])
    def test_its_size_is_clamped(self, size: int, total: int) -> None:
        """A header may declare any number, and one would drown the sum of all."""
        assert LARGEST_REFUSED == 1 << 30
        counting = recorder()
        counting.emit(MessageRefused(CHAT, "server_to_client", "close_1009", size))
        assert page(counting).value(f"{OVERSIZE}_sum") == total
        assert page(counting).value(f"{OVERSIZE}_bucket", le="+Inf") == 1
        assert page(counting).value(f"{OVERSIZE}_bucket", le="6.7108864e+07") == 0

    @pytest.mark.parametrize(
        "refused",
        [
            MessageRefused(CHAT, "client_to_server", "suspected", 5000, compressed=True, repeated=True),
            MessageRefused(REPORTED, "client_to_server", "suspected", 5000, repeated=True),
        ],
        ids=["compressed", "webhook"],
    )
    def test_a_repeat_without_a_size(self, refused: MessageRefused) -> None:
        """A compressed size says nothing of a limit; a reported one is counted with its report, its repeat is not."""
        counting = recorder()
        counting.emit(refused)
        found = page(counting)
        assert found.value(f"{OVERSIZE}_count") == 0
        assert found.counted("websocket_too_big_repeats_total", "source", "evidence") == {
            (refused.origin.source, "suspected"): 1
        }


class TestStandings:
    """What holds of each origin is asked at each scrape."""

    def test_gauges(self) -> None:
        """Each is the moment's; an origin of which nothing is said keeps its zeros."""
        counting = recorder()
        counting.watch(FEED, LISTED)
        counting.standings = lambda: {CHAT: Standing(600, 70, True, 3, 2, {})}
        found = page(counting)
        assert [found.value(name, source="tap", target="chat") for name in GAUGES] == [600, 70, 1, 3, 2]
        assert [found.value(name, target="feed") for name in GAUGES] == [0] * 5
        counting.standings = lambda: {CHAT: Standing(0, 0, False, 0, 0, {})}
        assert [page(counting).value(name) for name in GAUGES] == [0] * 5

    def test_the_bracket_of_the_limit(self) -> None:
        """A side that is known has a series, and has none any more when it is not: 0 would be a limit."""
        counting = recorder()
        by = ("source", "target", "direction", "origin")
        both = Bracket(1000, 2000)
        counting.message_size_limit(CHAT, "client_to_server", 1500)
        configured = {("tap", "chat", "client_to_server", "configured"): 1500}
        assert page(counting).counted(LIMIT, *by) == configured
        counting.standings = lambda: {
            CHAT: Standing(0, 0, False, 0, 0, {"client_to_server": both, "server_to_client": Bracket(None, 5)})
        }
        assert page(counting).counted(LIMIT, *by) == configured | {
            ("tap", "chat", "client_to_server", "accepted"): 1000,
            ("tap", "chat", "client_to_server", "rejected"): 2000,
            ("tap", "chat", "server_to_client", "rejected"): 5,
        }
        none = dict.fromkeys(DIRECTIONS, Bracket(contradicted=True))
        counting.standings = lambda: {CHAT: Standing(0, 0, False, 0, 0, none)}
        assert page(counting).counted(LIMIT, *by) == configured


class TestLimitRatio:
    """Message sizes as shares of a configured limit."""

    def test_it_exists_where_a_limit_is_or_was(self) -> None:
        """From the start, at 0, by direction; a limit that is gone leaves what was counted."""
        counting = recorder()
        watch = counting.watch(CHAT, LISTED)
        watch.client_to_server.plain.add(50)
        assert page(counting).samples[f"{RATIO}_count"] == []
        counting.message_size_limit(CHAT, "client_to_server", 1000)
        watch.client_to_server.plain.add(100)
        for _ in range(2):
            found = page(counting)
            assert labels(found, f"{RATIO}_count", "source", "target", "direction") == {
                ("tap", "chat", "client_to_server")
            }
            assert (found.value(f"{RATIO}_count"), found.value(f"{RATIO}_bucket", le="0.1")) == (1, 1)
            assert found.value(f"{RATIO}_sum") == pytest.approx(0.1)
            counting.message_size_limit(CHAT, "client_to_server", None)
            watch.client_to_server.plain.add(100)

    def test_buckets_are_cumulative(self) -> None:
        """The largest within a bound is in its bucket, and in all above."""
        counting = recorder()
        watch = counting.watch(CHAT, LISTED)
        counting.message_size_limit(CHAT, "server_to_client", 100)
        for size in (10, 11, 50, 100, 101):
            watch.server_to_client.plain.add(size)
        buckets = [sample.value for sample in page(counting).samples[f"{RATIO}_bucket"]]
        assert buckets == [1, 2, 3, 3, 3, 3, 4, 5]

    def test_watching_again_keeps_it(self) -> None:
        """Connections from before a reload and after it count in the same buckets."""
        counting = recorder()
        before = counting.watch(CHAT, LISTED)
        counting.message_size_limit(CHAT, "client_to_server", 1000)
        after = counting.watch(CHAT, LISTED)
        assert after.client_to_server is before.client_to_server
        after.client_to_server.plain.add(5)
        assert page(counting).value(f"{RATIO}_count") == 1

    def test_a_limit_of_what_is_not_watched(self) -> None:
        """There are no sizes to hold against it; what the operator says is shown."""
        counting = recorder()
        counting.message_size_limit(FEED, "client_to_server", 1000)
        found = page(counting)
        assert found.value(LIMIT, target="feed") == 1000
        assert found.samples[f"{RATIO}_count"] == []
