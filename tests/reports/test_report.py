"""One event: its fields, its time, and what its types cannot say."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from exporter.events import Rejection
from exporter.reports import Report, check
from exporter.reports.report import LONGEST
from tests.reports.support import body_of, only


def test_a_close_needs_no_more_than_its_code() -> None:
    """What is not said is unknown, empty or absent, and the event is a close."""
    report = only(b'{"code": 1006}')
    assert report == Report(code=1006)
    assert isinstance(report, Report)
    assert (report.event, report.initiator, report.target, report.source) == ("close", "unknown", "", "")
    assert (report.id, report.time, report.duration, report.reason) == (None, None, None, None)


def test_an_open_needs_no_code() -> None:
    """An open is told by its event alone."""
    assert only(b'{"event": "open"}') == Report(event="open")


def test_every_field_arrives() -> None:
    """Each field of the wire format is kept as it was sent."""
    fields = {
        "event": "close",
        "code": 1009,
        "reason": "message too big \u2028 \u0000",
        "initiator": "client",
        "target": "chat",
        "id": "a b~!",
        "source": "pod-7",
        "time": 1_772_366_400_250,
        "duration": 0.5,
        "message_size": 2**63 - 1,
        "direction": "server_to_client",
        "largest_message": 0,
        "client": "opaque",
        "user_agent": "acme/1",
    }
    report = only(body_of(fields))
    assert isinstance(report, Report)
    assert msgspec.structs.asdict(report) == fields


@pytest.mark.parametrize(
    "field",
    ["reason", "id", "time", "duration", "message_size", "direction", "largest_message", "client", "user_agent"],
)
def test_null_is_as_good_as_absent(field: str) -> None:
    """Senders that have nothing to say may say null, where a field has no default."""
    assert only(body_of({"code": 1000, field: None})) == Report(code=1000)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (None, None),
        (0, 0.0),
        (1_772_366_400_250, 1_772_366_400.25),
        ("2026-03-01T12:00:00.250Z", 1_772_366_400.25),
        ("2026-03-01t13:00:00.25+01:00", 1_772_366_400.25),
        ("1969-12-31T23:59:59-00:00", -1.0),
        ("0001-01-01T00:00:00+14:00", -62_135_647_200.0),
    ],
)
def test_time_in_unix_seconds(time: int | str | None, expected: float | None) -> None:
    """Both spellings of a time give the same seconds since 1970; no time gives none."""
    report = only(body_of({"code": 1000, "time": time}))
    assert isinstance(report, Report)
    assert report.unix_time == expected


def test_the_time_keeps_its_offset() -> None:
    """A time as text is the moment it names, whatever the offset in which it is written."""
    report = only(body_of({"code": 1000, "time": "2026-03-01T12:00:00+05:30"}))
    assert isinstance(report, Report)
    assert report.time == datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5.5)))
    assert report.time == datetime(2026, 3, 1, 6, 30, tzinfo=UTC)


def test_a_reason_may_be_longer_than_a_close_frame_has_room_for() -> None:
    """A reason beyond the 123 bytes of RFC 6455 section 5.5 is the log's business, not a reason to lose the event."""
    report = only(body_of({"code": 1000, "reason": "é" * 1000}))
    assert isinstance(report, Report)
    assert report.reason == "é" * 1000


@pytest.mark.parametrize(
    ("report", "rejection"),
    [
        (Report(), "missing_code"),
        (Report(event="open"), None),
        (Report(event="open", code=1000), "invalid_event"),
        (Report(event="open", code=0), "invalid_event"),
        (Report(code=0), None),
        (Report(code=1000, id="x\n"), "invalid_id"),
        (Report(code=1000, id="\x7f"), "invalid_id"),
        (Report(code=1000, id="é"), "invalid_id"),
        (Report(code=1000, id=" ~"), None),
        (Report(code=1009, message_size=1), "invalid_size"),
        (Report(code=1009, message_size=0, direction="client_to_server"), None),
        (Report(code=1009, direction="client_to_server"), None),
        (Report(event="open", message_size=1), "invalid_size"),
    ],
)
def test_what_types_cannot_say(report: Report, rejection: Rejection | None) -> None:
    """A close has a code and an open has none, ids are printable ASCII, and a refused message went somewhere."""
    assert check(report) == rejection


def test_a_report_cannot_be_changed() -> None:
    """Events are facts: nothing behind the decoder alters one."""
    with pytest.raises(AttributeError):
        Report(code=1000).code = 1001  # type: ignore[misc]


def test_durations_stay_summable() -> None:
    """A duration is bounded, so that no event can drown the sum of all or make it infinite."""
    assert only(body_of({"code": 1000, "duration": LONGEST})) == Report(code=1000, duration=LONGEST)
    assert only(body_of({"code": 1000, "duration": LONGEST * 1.001})) == "invalid_duration"
