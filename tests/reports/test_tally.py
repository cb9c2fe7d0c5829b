"""What reports add up to."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.closecodes import Vocabulary
from exporter.events import Count
from exporter.reports import Report
from exporter.reports.tally import MAX_SIZE, NOBODY, Kinds, Refusal, add_up

VOCABULARY = Vocabulary(frozenset({4001}), frozenset({3001}))
KINDS = Kinds({"chat": VOCABULARY, "feed": VOCABULARY})


def counted(*reports: Report, opened: frozenset[str] = NOBODY) -> dict[Count, float]:
    kinds = [KINDS.of(report.target or "chat", report.code, report.initiator) for report in reports]
    refusals = [
        Refusal(report.target or "chat", report.direction, report.message_size)
        for report in reports
        if report.direction is not None and report.message_size is not None
    ]
    return add_up([kind for kind in kinds if kind], [report.duration for report in reports], refusals, opened)


def close(code: int, **fields: Any) -> Report:
    return Report(code=code, **fields)


def test_nothing() -> None:
    """No reports add nothing."""
    assert counted() == {}


def test_closes_by_code_and_initiator() -> None:
    """Closes count by code label and initiator, for the target they name, else for the one that was given."""
    going = close(1001, initiator="server")
    reports = [going, going, close(1001), close(1000, target="feed")]
    assert counted(*reports) == {
        Count("chat", "closes", "1001 server"): 2,
        Count("chat", "closes", "1001 unknown"): 1,
        Count("feed", "closes", "1000 unknown"): 1,
    }


def test_a_target_that_is_unknown() -> None:
    """There is no kind of report for it, and it is not remembered: anyone could name thousands."""
    assert KINDS.of("nobody", 1000, "client") is None
    assert KINDS.find(("nobody", 1000, "client")) is None


def test_there_is_one_of_each_kind() -> None:
    """Reports are alike by target, code and initiator."""
    one = KINDS.of("chat", 1000, "client")
    assert one is KINDS.of("chat", 1000, "client") is KINDS.find(("chat", 1000, "client"))
    others = [KINDS.of("feed", 1000, "client"), KINDS.of("chat", 1001, "client"), KINDS.of("chat", None, "client")]
    assert len({one, *others}) == 4


def test_labels_of_codes() -> None:
    """An application's own words: 1005, 1006 and 1015 have labels; the rest is folded as on the wire."""
    codes = (1005, 1006, 1015, 1004, 0, 999, 1016, 3001, 3999, 4001, 4002)
    labels = ("1005", "1006", "1015", "invalid", "invalid", "invalid", "reserved", "3001", "3xxx", "4001", "4xxx")
    for code, label in zip(codes, labels, strict=True):
        assert counted(close(code)) == {Count("chat", "closes", f"{label} unknown"): 1}, code


def test_durations() -> None:
    """A duration adds to the bucket of the smallest bound it does not exceed, and to the sum."""
    reports = [close(1000, duration=seconds) for seconds in (0, 0.1, 0.2, 86_400.5)]
    assert counted(*reports) == {
        Count("chat", "closes", "1000 unknown"): 4,
        Count("chat", "duration", "0.1"): 2,
        Count("chat", "duration", "1.0"): 1,
        Count("chat", "duration", "+Inf"): 1,
        Count("chat", "duration", "sum"): 86_400.8,
    }


def test_refused_sizes() -> None:
    """The size of a message refused by a 1009 counts in its direction, a huge one less."""
    found = counted(
        close(1009, message_size=1 << 20, direction="client_to_server"),
        close(1009, message_size=1 << 40, direction="server_to_client"),
    )
    assert {count.key: number for count, number in found.items() if count.what == "refused_size"} == {
        "client_to_server 1.048576e+06": 1,
        "client_to_server sum": 1 << 20,
        "server_to_client +Inf": 1,
        "server_to_client sum": MAX_SIZE,
    }


def test_opens() -> None:
    """Opens count by themselves; from the first one on closes are set off against them."""
    opened, closed = Report(event="open", duration=5.0), close(1000, duration=0.1)
    assert counted(opened, closed, opened, opened=frozenset({"chat"})) == {
        Count("chat", "opens"): 2,
        Count("chat", "closes", "1000 unknown"): 1,
        Count("chat", "closes_since_open"): 1,
        Count("chat", "duration", "0.1"): 1,
        Count("chat", "duration", "sum"): 0.1,
    }
    assert Count("chat", "closes_since_open") not in counted(closed)
    assert counted(closed, opened=frozenset({"chat"}))[Count("chat", "closes_since_open")] == 1


reports = st.builds(
    close,
    code=st.sampled_from([1000, 1001, 1006, 1009, 4444]),
    initiator=st.sampled_from(["client", "server", "unknown"]),
    target=st.sampled_from(["", "chat", "feed"]),
    duration=st.none() | st.integers(0, 100_000),
)


@given(st.lists(reports, max_size=30), st.integers(0, 30))
def test_parts_add_up_to_the_whole(all_reports: list[Report], cut: int) -> None:
    """However reports are split into requests, the counts are the same."""
    whole = counted(*all_reports)
    parts = [counted(*all_reports[:cut]), counted(*all_reports[cut:])]
    together: dict[Count, float] = {}
    for part in parts:
        for count, number in part.items():
            together[count] = together.get(count, 0) + number
    assert together == whole
    assert sum(number for count, number in whole.items() if count.what == "closes") == len(all_reports)
