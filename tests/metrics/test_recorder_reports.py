"""What the recorder makes of reported events: counts that may be older than the process."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.closecodes import Vocabulary
from exporter.events import DIRECTIONS, EVIDENCES, REJECTIONS, Count, Reported
from exporter.metrics.recorder import Recorder
from tests.metrics.test_recorder import LISTED, NOW, labels, page

CODES = "websocket_closes_total"
EVENTS = "websocket_exporter_webhook_events_total"
DURATION = "websocket_connection_duration_seconds"
OVERSIZE = "websocket_oversize_message_size_bytes"
CREATED = "websocket_target_created_timestamp_seconds"


def recorder(created: float | None = None) -> Recorder:
    recorder = Recorder(lambda: NOW)
    recorder.watch_reports("chat", LISTED, created)
    recorder.webhook_born(1000)
    return recorder


def reported(**counts: float) -> Reported:
    """Closes of `chat` by label and initiator: `c1001_server=2`."""
    return Reported({Count("chat", "closes", key[1:].replace("_", " ")): number for key, number in counts.items()})


def test_born_at_zero() -> None:
    """What can be reported exists at 0: closes by each initiator, durations, refused sizes; no opens, no messages."""
    found = page(recorder())
    initiators = labels(found, CODES, "initiator", "source", "target")
    assert initiators == {(who, "webhook", "chat") for who in ("client", "server", "unknown")}
    assert {code for (code,) in labels(found, CODES, "code")} == set(LISTED.labels())
    assert found.value(f"{DURATION}_count") == found.value(CODES) == 0
    assert labels(found, f"{OVERSIZE}_count", "direction", "evidence") == set(product(DIRECTIONS, EVIDENCES))
    assert labels(found, EVENTS, "result", "reason") == {
        ("accepted", "none"),
        ("duplicate", "none"),
        *(("rejected", reason) for reason in REJECTIONS),
    }
    absent = ("websocket_handshakes_total", "websocket_connections_active", "websocket_message_size_bytes_count")
    assert [name for name in absent if found.samples[name]] == []


def test_closes_get_their_class() -> None:
    """A close is counted under its label, with the class that the target's configuration gives it."""
    one = recorder()
    one.emit(reported(c1001_server=2, c3001_unknown=1, c4xxx_client=1))
    assert page(one).counted(CODES, "code", "class", "initiator") == {
        ("1001", "going_away", "server"): 2,
        ("3001", "going_away", "unknown"): 1,
        ("4xxx", "application", "client"): 1,
    }
    assert page(one).value("websocket_exporter_label_overflow_total", label="code") == 1


def test_events_by_result() -> None:
    """Events are counted by what became of them."""
    one = recorder()
    one.emit(Reported({}, 3, 2, {"too_old": 1, "invalid_code": 4}))
    one.emit(Reported({}, 1))
    assert page(one).counted(EVENTS, "result", "reason") == {
        ("accepted", "none"): 4,
        ("duplicate", "none"): 2,
        ("rejected", "too_old"): 1,
        ("rejected", "invalid_code"): 4,
    }


def test_histograms() -> None:
    """Buckets and sums add up; a bound that this version does not have goes into the next one."""
    one = recorder()
    one.emit(
        Reported(
            {
                Count("chat", "duration", "5.0"): 2,
                Count("chat", "duration", "7.0"): 1,
                Count("chat", "duration", "+Inf"): 1,
                Count("chat", "duration", "sum"): 100_010.5,
                Count("chat", "refused_size", "client_to_server 2.097152e+06"): 1,
                Count("chat", "refused_size", "client_to_server sum"): 2_000_000,
            }
        )
    )
    found = page(one)
    buckets = {float(sample.labels["le"]): sample.value for sample in found.samples[f"{DURATION}_bucket"]}
    assert (buckets[1.0], buckets[5.0], buckets[15.0], buckets[86400.0], buckets[float("inf")]) == (0, 2, 3, 3, 4)
    assert (found.value(f"{DURATION}_count"), found.value(f"{DURATION}_sum")) == (4, 100_010.5)
    assert found.value(f"{OVERSIZE}_sum", direction="client_to_server") == 2_000_000
    assert found.value(f"{OVERSIZE}_bucket", le="1.048576e+06") == 0
    assert found.value(f"{OVERSIZE}_bucket", le="2.097152e+06") == 1


def test_active_connections() -> None:
    """What is active appears with the first open: opens less the closes since; never less than none."""
    one = recorder()
    one.emit(reported(c1000_client=5))
    assert not page(one).samples["websocket_connections_active"]
    one.emit(Reported({Count("chat", "opens"): 3, Count("chat", "closes_since_open"): 1}))
    assert page(one).value("websocket_connections_active", source="webhook", target="chat") == 2
    assert page(one).counted("websocket_handshakes_total", "outcome", "status") == {("accepted", "101"): 3}
    one.emit(Reported({Count("chat", "closes_since_open"): 4}))
    assert page(one).value("websocket_connections_active") == 0
    one.emit(Reported({Count("chat", "opens"): 3}))
    assert page(one).value("websocket_connections_active") == 1


def test_restored_counts() -> None:
    """Counts from before this process are continued, since they began, and are no events of its own."""
    one = recorder(created=NOW - 1000)
    one.restore({Count("chat", "closes", "1009 server"): 40_000, Count("chat", "closes", "4xxx client"): 5})
    one.emit(reported(c1009_server=1))
    found = page(one)
    assert found.value(CODES, code="1009") == 40_001
    assert found.value(CREATED, source="webhook") == NOW - 1000
    assert (found.value(EVENTS), found.value("websocket_exporter_label_overflow_total")) == (0, 0)


def test_created_is_kept() -> None:
    """Watching again, with other codes, keeps the time at which counts began."""
    one = recorder(created=NOW - 1000)
    one.watch_reports("chat", Vocabulary(frozenset({4002}), frozenset()), NOW)
    assert page(one).value(CREATED) == NOW - 1000
    assert labels(page(one), CODES, "code") >= {("4002",)}


def test_ids() -> None:
    """How many ids are remembered is asked at each scrape, and shown only where there is a webhook."""
    one = recorder()
    names = ("websocket_exporter_webhook_ids", "websocket_exporter_webhook_ids_since_timestamp_seconds")
    assert not any(page(one).samples[name] for name in names)
    one.known_ids = lambda: (7, NOW - 60)
    assert [page(one).value(name) for name in names] == [7, NOW - 60]
    assert page(one).value("websocket_exporter_webhook_ids_limit") == 1000
    one.storage_failed()
    assert page(one).value("websocket_exporter_storage_errors_total") == 1


@settings(max_examples=25, deadline=None)  # an example renders two pages of 1,000 series
@given(st.lists(st.floats(0, 1e9), max_size=20), st.integers(0, 20))
def test_restoring_is_adding(values: list[float], cut: int) -> None:
    """Counts before and after a restart give what all of them together would have given."""
    parts = [values[:cut], values[cut:]]
    whole, split = recorder(), recorder()
    whole.emit(Reported({Count("chat", "duration", "5.0"): len(values), Count("chat", "duration", "sum"): sum(values)}))
    for part in parts:
        split.restore({Count("chat", "duration", "5.0"): len(part), Count("chat", "duration", "sum"): sum(part)})
    pages = page(whole), page(split)
    assert [one.value(f"{DURATION}_count") for one in pages] == [len(values)] * 2
    first, second = (one.value(f"{DURATION}_sum") for one in pages)
    assert abs(first - second) <= 1e-6 * sum(values)
