"""However slow a body is made, one step looks at a bounded number of bytes and events."""

import importlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from benchmarks.stalls import SLOW
from exporter.reports import MAX_EVENT, MAX_EVENTS, BodyFault, Report, bodies, decode
from exporter.reports.bodies import EVENT_COST, STEP
from exporter.reports.reading import Reader
from tests.reports.support import BATCHED, JSON, NDJSON, STRUCTURED, only, outcome

module: Final = importlib.import_module("exporter.reports.decode")
REPORT: Final = b'{"code":1000,"reason":"%b"}'


class Work:
    """What parsers were given since it was last asked: bytes, and single events."""

    def __init__(self) -> None:
        self.bytes = self.events = 0

    def done(self) -> tuple[int, int]:
        found = self.bytes, self.events
        self.bytes = self.events = 0
        return found


class Counted:
    """A decoder that counts what it is given."""

    def __init__(self, real: Any, work: Work) -> None:
        self.real, self.work = real, work

    def decode(self, text: bytes) -> Any:
        self.work.bytes += len(text)
        return self.real.decode(text)

    def decode_lines(self, text: bytes) -> Any:
        self.work.bytes += len(text)
        return self.real.decode_lines(text)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Counts what is parsed, where it is."""
    counts = Work()
    value_end, read, blank_end = bodies._value_end, Reader.__call__, bodies._blank_end

    def counted_value_end(text: bytes, start: int) -> int:
        counts.bytes += MAX_EVENT
        end = value_end(text, start)
        counts.bytes += end - MAX_EVENT
        return end

    def counted_read(reader: Reader[Any], text: bytes) -> object:
        counts.bytes += len(text)
        counts.events += 1
        return read(reader, text)

    def counted_blank_end(text: bytes, start: int) -> int:
        end = blank_end(text, start)
        counts.bytes += end - start
        return end

    monkeypatch.setattr(bodies, "_value_end", counted_value_end)
    monkeypatch.setattr(bodies, "_blank_end", counted_blank_end)
    monkeypatch.setattr(Reader, "__call__", counted_read)
    for decoder in ("_reports", "_report"):
        monkeypatch.setattr(module, decoder, Counted(getattr(module, decoder), counts))
    return counts


def steps(body: bytes, content_type: str, work: Work) -> Iterator[tuple[int, int]]:
    """What each step of decoding a body parses."""
    under_way = decode(body, content_type, {})
    try:
        for _ in under_way:
            yield work.done()
    except BodyFault:
        pass
    yield work.done()


@pytest.mark.parametrize("name", SLOW)
def test_what_is_slow_is_cut_into_steps(name: str, work: Work) -> None:
    """No step parses more than 256 KiB, or reads more than 130 events one by one."""
    slow = SLOW[name]
    done = list(steps(slow.body, slow.content_type, work))
    assert max(parsed for parsed, _ in done) <= max(module.LONG, 4 * STEP)
    assert max(events for _, events in done) <= 2 * (STEP // EVENT_COST + 1)


def test_a_large_body_takes_a_step_for_each_64_kib(work: Work) -> None:
    """A megabyte of good events is not decoded in one go."""
    for content_type, body in ((JSON, SLOW["1,000 events of 1 KiB"].body), (NDJSON, b"%b\n" % (REPORT % b"x") * 1000)):
        done = list(steps(body, content_type, work))
        assert len(done) >= len(body) // (2 * STEP)
        assert sum(parsed for parsed, _ in done) >= len(body.replace(b"\n", b""))


@pytest.mark.parametrize("blanks", [b"", b" " * 10, b" \r\n\t" * STEP])
@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("beside", [b"", REPORT % b"y", REPORT % (b"z" * 200_000 + b"{"), b'{"code":true}', b"1"])
def test_an_event_has_64_kib(blanks: bytes, more: int, beside: bytes) -> None:
    """One byte more is too large, alone or in an array, whatever stands beside it; blanks do not count."""
    event = REPORT % (b"x" * (MAX_EVENT - len(REPORT % b"") + more))
    report = Report(code=1000, reason="x" * (len(event) - len(REPORT % b"")))
    alone = outcome(blanks + event + blanks)
    assert alone == ("<body_too_large>" if more else [report])
    body = b"[%b]" % b",".join(blanks + one + blanks for one in (event, beside) if one)
    if more or len(beside) > MAX_EVENT:
        assert outcome(body) == "<body_too_large>"
    else:
        assert outcome(body) == [report, *([only(beside)] if beside else [])]


@pytest.mark.parametrize("content_type", [STRUCTURED, BATCHED])
def test_a_cloudevent_has_64_kib(content_type: str) -> None:
    """Extensions count: there may be any number, and all have to be looked at."""
    event = b'{"specversion":"1.0","type":"t","source":"s","id":"1","x":"%b","data":{"code":1000}}'
    body = event if content_type == STRUCTURED else b"[%b]" % event
    longest = MAX_EVENT - len(event % b"")
    assert outcome(body % (b"x" * longest), content_type) == [Report(code=1000, id="1", source="s")]
    assert outcome(body % (b"x" * (longest + 1)), content_type) == "<body_too_large>"


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b"[" * MAX_EVENT * 2, "invalid_json"),
        (b'{"a":' * MAX_EVENT, "invalid_json"),
        (b"1" * MAX_EVENT * 2, "invalid_json"),
        (b"[" + b"1" * MAX_EVENT * 2 + b"]", "invalid_json"),
        (b" " * MAX_EVENT * 2, "invalid_json"),
        (b"[" + b" " * MAX_EVENT * 2, "invalid_json"),
        (b"[" + b" " * MAX_EVENT * 2 + b",{}]", "invalid_json"),
        (b"[{}]" + b" " * MAX_EVENT * 2 + b"x", "invalid_json"),
        (b"{}" + b" " * MAX_EVENT * 2 + b"{}", "invalid_json"),
        (b'["' + b"x" * MAX_EVENT * 2 + b'"]', "body_too_large"),
        (b'["' + b"\\ud800" * MAX_EVENT + b'"]', "body_too_large"),
        (b'["' + b"\\u12" * MAX_EVENT + b'"]', "body_too_large"),
        (b"[" + b"{}," * MAX_EVENT + b"{}]", "too_many_events"),
        (b"[" + b"{}," * MAX_EVENTS + b"]", "too_many_events"),
    ],
    ids=lambda value: f"{value[:8]!r}" if isinstance(value, bytes) else value,
)
def test_large_bodies_that_are_no_events(body: bytes, token: str) -> None:
    """What is no JSON is told as far as it is looked at."""
    assert outcome(body) == f"<{token}>"


@pytest.mark.parametrize("offset", range(4))
def test_escapes_at_the_edge_of_a_step(offset: int) -> None:
    """Half a surrogate pair does not make the array malformed in which it is, wherever it stands."""
    events = [b'{"code":1000,"reason":"%b"}' % (b"x" * 990) for _ in range(300)]
    before = b"[" + b",".join(events[:65]) + b","
    padding = STEP - len(before) - len(b'{"code":1000,"reason":"') - offset
    events[65] = b'{"code":1000,"reason":"%b\\ud800"}' % (b"x" * padding)
    items = outcome(b"[" + b",".join(events) + b"]")
    assert [index for index, item in enumerate(items) if isinstance(item, str)] == [65]
    assert items[65] == "invalid_string"
