"""Logs: one event is one line, nothing peers write can forge another, and no pipe ever holds up or breaks the relay."""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from exporter import log
from exporter.events import (
    AnomalySeen,
    BuildReturns,
    Closed,
    Event,
    HandshakeEnded,
    MassClose,
    MassCloseEnded,
    MessageRefused,
    Origin,
    Peer,
    PingAnswered,
    StreamUnparsed,
    Traffic,
    TransportEnd,
    Verdict,
)
from exporter.log import EventLog, setup
from exporter.log import writer as writing
from exporter.log.writer import LineWriter

ORIGIN: Final = Origin("tap", "chat")
CLOSED: Final = Closed(
    ORIGIN,
    code="1009",
    close_class="too_big",
    initiator="server",
    duration=12.34567,
    wire_code=1009,
    reason="message too big",
    peer=Peer("10.1.2.3:51234", "chat.example.com", "/ws/room", "okhttp/4.12", "chat.v2"),
    client_to_server=Traffic(bytes=5000, messages=3, largest_message=4096),
    server_to_client=Traffic(bytes=700, messages=2, largest_message=512),
    transport_end=TransportEnd("server", "fin"),
)
HOSTILE: Final = {
    "CRLF": "a\r\n2026-01-01T00:00:00Z [error] forged",
    "ANSI escape": "\x1b[31mred\x1b]0;title\x07",
    "C1 control": "\x9b31m",
    "DEL": "a\x7fb",
    "NUL": "a\x00b",
    "bidi override": "\u202egpj.exe",
    "bidi isolate": "\u2066x\u2069",
    "line separator": "a\u2028b\u2029c",
    "NEL": "a\x85b",
    "lone surrogate": "\ud800",
    "surrogates of undecodable bytes": b"\xff\xfe".decode(errors="surrogateescape"),
    "quotes": "a\"b'c\\d",
}


class Log:
    """A configured log whose lines arrive in a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def configure(self, level: str = "debug", format: str = "json") -> "Log":
        log.configure(level, format, self.writer)
        return self

    def lines(self) -> list[str]:
        """Every line so far; ends logging."""
        log.shutdown()
        self.close_writer()
        with os.fdopen(self.reader, "rb") as file:
            self.reader = -1
            return [line.decode("utf-8") for line in file.read().split(b"\n")[:-1]]

    def read_while_flushing(self) -> list[bytes]:
        """Every line so far, more of them than the pipe holds; ends logging."""
        received: list[bytes] = []

        def read() -> None:
            with os.fdopen(self.reader, "rb") as file:
                received.extend(file)

        reading = threading.Thread(target=read)
        reading.start()
        log.shutdown(timeout=30)
        self.close_writer()
        reading.join(30)
        self.reader = -1
        return received

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close_reader(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@pytest.fixture(autouse=True)
def _global_logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.shutdown()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def logged() -> Iterator[Log]:
    pipe = Log()
    yield pipe
    pipe.close_reader()  # first, so that a writer that is still blocked ends
    log.shutdown()
    pipe.close_writer()


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


# -- one event, one line


def test_json_line_begins_with_what_is_common_to_all(logged: Log) -> None:
    """A line is one JSON object: time (UTC), level and event first, then what is particular."""
    logged.configure()
    structlog.get_logger().warning("it happened", where="here", often=3)
    (line,) = logged.lines()
    assert re.fullmatch(
        r'{"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","level":"warning","event":"it happened",'
        r'"where":"here","often":3}',
        line,
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_escapes_what_could_forge(logged: Log, text: str) -> None:
    """In JSON every hostile text is escaped, wherever it stands, and read back as it was."""
    logged.configure()
    structlog.get_logger().info(text, value=text, inner=[{"deep": text}], **{text: text})
    (line,) = logged.lines()
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert [found["event"], found["value"], found["inner"], found[text]] == [text, text, [{"deep": text}], text]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_console_escapes_what_could_forge(logged: Log, text: str) -> None:
    """On the console too, although its renderer prints text without spaces raw."""
    logged.configure(format="console")
    structlog.get_logger().info(text, value=text, inner=[{"deep": text}], **{text: text})
    (line,) = logged.lines()
    assert line.isprintable()


@given(st.text(st.characters()), st.sampled_from(["json", "console"]))
def test_any_text_is_one_printable_line(text: str, format: str) -> None:
    """Whatever text is logged, it is one line without anything that a terminal would not show."""
    pipe = Log().configure(format=format)
    structlog.get_logger().info("x" + text, value=text)
    (line,) = pipe.lines()
    assert line.isprintable()
    assert format == "console" or json.loads(line)["value"] == text


class Unprintable:
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_value_makes_logging_raise(logged: Log, format: str) -> None:
    """Values without a JSON form, circles, NaN and objects that cannot even be shown still give their line."""
    logged.configure(format=format)
    circle: list[object] = []
    circle.append(circle)
    values = [float("nan"), float("inf"), Unprintable(), {1: object()}, b"\x1b", circle, {(1, 2): 3}, None, 10**5000]
    for number, value in enumerate(values):
        structlog.get_logger().info(f"event {number}", value=value)
    lines = logged.lines()
    assert len(lines) == len(values)
    for number, line in enumerate(lines):
        assert f"event {number}" in line
        assert line.isprintable()


def test_strict_json_readers_can_read_every_number(logged: Log) -> None:
    """NaN and infinity are no JSON: they are logged as text."""
    logged.configure()
    structlog.get_logger().info("x", nan=float("nan"), inf=float("inf"))
    (line,) = logged.lines()
    found = json.loads(line, parse_constant=pytest.fail)
    assert (found["nan"], found["inf"]) == ("nan", "inf")


def raised(text: str) -> BaseException:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_traceback_is_inside_its_line(logged: Log) -> None:
    """In JSON a traceback is a text of the event's own line."""
    logged.configure()
    structlog.get_logger().error("failed", exc_info=raised("a\nb\x1b"))
    (found,) = logged.events()
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: a\nb\x1b")


def test_traceback_on_the_console_cannot_pass_for_an_event(logged: Log) -> None:
    """On the console every line of a traceback is indented and escaped: its message may come from a peer."""
    logged.configure(format="console")
    structlog.get_logger().error("failed", exc_info=raised("a\n2026-01-01T00:00:00Z [info] forged\x1b"))
    first, *rest = logged.lines()
    assert "failed" in first
    assert any("forged\\x1b" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


# -- levels, formats, and what libraries log


def test_level_can_change_under_existing_loggers(logged: Log) -> None:
    """set_level is obeyed at once, also by loggers that were bound before, and by libraries' loggers."""
    logged.configure(level="warning")
    ours, theirs = structlog.get_logger(), logging.getLogger("library")
    ours.info("no")
    theirs.info("no")
    log.set_level("debug")
    ours.debug("yes")
    theirs.debug("yes")
    log.set_level("error")
    ours.warning("no")
    theirs.warning("no")
    assert [found["event"] for found in logged.events()] == ["yes", "yes"]


def test_libraries_log_into_the_same_lines(logged: Log) -> None:
    """What goes through `logging` is a line like any other, with the logger's name."""
    logged.configure()
    logging.getLogger("asyncio").error("task %s failed", "x\r\ny", exc_info=raised("why"))
    (found,) = logged.events()
    assert (found["level"], found["event"], found["logger"]) == ("error", "task x\r\ny failed", "asyncio")
    assert found["exception"].endswith("ValueError: why")


@pytest.mark.parametrize(
    ("number", "level"),
    [(5, "debug"), (10, "debug"), (25, "info"), (35, "warning"), (50, "critical"), (99, "critical")],
)
def test_levels_of_libraries_are_rounded_down(logged: Log, number: int, level: str) -> None:
    """Levels that only a library knows become the nearest known one below."""
    logged.configure()
    logging.getLogger("library").handle(logging.LogRecord("library", number, "", 0, "x", None, None))
    (found,) = logged.events()
    assert found["level"] == level


def test_wrong_arguments_of_a_library_are_no_fault(logged: Log) -> None:
    """A format string that its arguments do not fit is logged as it is."""
    logging.getLogger().handlers.clear()  # pytest's own handler raises for it
    logged.configure()
    logging.getLogger("library").warning("%d connections", "many")
    (found,) = logged.events()
    assert found["event"] == "%d connections"


def test_auto_is_json_unless_a_terminal(logged: Log) -> None:
    """Lines are JSON in a pipe or file, and for people on a terminal."""
    logged.configure(format="auto")
    structlog.get_logger().info("to a pipe")
    assert [found["event"] for found in logged.events()] == ["to a pipe"]
    reader, terminal = os.openpty()
    try:
        log.configure("info", "auto", terminal)
        structlog.get_logger().info("to a terminal")
        log.shutdown()
        shown = os.read(reader, 4096).decode()
    finally:
        os.close(terminal)
        os.close(reader)
    assert "\x1b[" in shown
    assert re.search(r"info .*to a terminal", shown)


def test_configuring_twice_logs_once(logged: Log) -> None:
    """A second configure replaces the first: each event is still one line."""
    logged.configure().configure()
    structlog.get_logger().info("ours")
    logging.getLogger("library").info("theirs")
    assert [found["event"] for found in logged.events()] == ["ours", "theirs"]


# -- pipes


def test_blocked_pipe_never_blocks(logged: Log) -> None:
    """While nobody reads, lines wait, then are dropped and counted; those that waited arrive whole and in order."""
    logged.configure()
    before = log.dropped_lines()
    logger = structlog.get_logger()
    lines = writing.CAPACITY + 5000
    began = time.monotonic()
    for number in range(lines):
        logger.info("filling the pipe", number=number)
    assert time.monotonic() - began < 10
    dropped = log.dropped_lines() - before
    assert 0 < dropped <= 5000
    received = logged.read_while_flushing()
    assert [json.loads(line)["number"] for line in received] == list(range(lines - dropped))


def test_closed_pipe_costs_lines_only(logged: Log) -> None:
    """When the reader is gone nothing raises, and every lost line is counted."""
    logged.configure()
    before = log.dropped_lines()
    logged.close_reader()
    for _ in range(100):
        structlog.get_logger().info("into the void")
    eventually(lambda: log.dropped_lines() - before == 100)


def test_descriptor_closed_from_the_start_costs_lines_only() -> None:
    """So it is when there is no standard error at all."""
    reader, closed = os.pipe()
    os.close(reader)
    os.close(closed)
    writer = LineWriter(closed)
    writer.write("lost")
    eventually(lambda: writer.dropped == 1)
    writer.close()


def test_log_keeps_its_own_descriptor(logged: Log) -> None:
    """The number may be closed and reused: the log goes where it went, never into somebody's connection."""
    logged.configure()
    number = logged.writer
    logged.close_writer()
    other_reader, reused = os.pipe()
    assert number in (other_reader, reused)
    structlog.get_logger().info("to the old pipe")
    assert [found["event"] for found in logged.events()] == ["to the old pipe"]
    os.close(reused)
    assert os.read(other_reader, 1) == b""
    os.close(other_reader)


def test_pipe_made_non_blocking_by_others_loses_nothing(logged: Log) -> None:
    """A shared terminal or pipe may be set to non-blocking by another process: the log waits for room."""
    os.set_blocking(logged.writer, False)
    logged.configure()
    before = log.dropped_lines()
    for number in range(3000):
        structlog.get_logger().info("more than a pipe holds", number=number)
    received = logged.read_while_flushing()
    assert len(received) == 3000
    assert log.dropped_lines() == before


def test_flushing_has_a_limit(logged: Log) -> None:
    """Shutting down does not wait for a pipe that nobody reads."""
    logged.configure()
    for _ in range(2000):
        structlog.get_logger().info("more than a pipe holds", filler="x" * 100)
    began = time.monotonic()
    log.shutdown(timeout=0.1)
    assert time.monotonic() - began < 5


def test_lines_after_the_end_are_counted(logged: Log) -> None:
    """Logging after shutdown is harmless; the count of lost lines outlives the writer."""
    logged.configure()
    structlog.get_logger().info("before")
    writer = setup._writer
    assert writer is not None
    log.shutdown()
    before = writer.dropped
    structlog.get_logger().info("after")
    assert writer.dropped == before + 1
    assert [found["event"] for found in logged.events()] == ["before"]


def run_program(program: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], **options)


def test_last_lines_are_written_at_exit() -> None:
    """A process that just ends has all its lines written."""
    program = (
        "import structlog; from exporter import log; log.configure('info', 'json')\n"
        "for n in range(500): structlog.get_logger().info('last', number=n)"
    )
    with run_program(program, stderr=subprocess.PIPE) as process:
        _, stderr = process.communicate(timeout=30)
    assert [json.loads(line)["number"] for line in stderr.splitlines()] == list(range(500))


def test_blocked_pipe_does_not_keep_a_process_from_ending() -> None:
    """At exit a pipe that nobody reads delays the end by the flush timeout only."""
    program = (
        "import structlog; from exporter import log; log.configure('info', 'json')\n"
        "for n in range(5000): structlog.get_logger().info('x' * 100)\n"
        "print('done', flush=True)"
    )
    with run_program(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        began = time.monotonic()
        try:
            assert process.wait(timeout=20) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert time.monotonic() - began < writing.FLUSH_TIMEOUT + 4


def test_rich_is_not_loaded_for_logging() -> None:
    """Only a terminal's demo needs rich; 5 MiB in every sidecar would be a high price for tracebacks."""
    program = "import sys; from exporter import log; assert 'rich' not in sys.modules; import rich.console"
    with run_program(program) as process:
        assert process.wait(timeout=30) == 0


# -- the line of a close


def emitted(pipe: Log, *events: Event) -> list[dict[str, Any]]:
    sink = EventLog()
    for event in events:
        sink.emit(event)
    found = pipe.events()
    for fields in found:
        assert fields.pop("timestamp")
    return found


def test_close_is_one_line_with_everything(logged: Log) -> None:
    """A WebSocket's end is one line: who, what, why, how long, how much, from where."""
    assert emitted(logged.configure(), CLOSED) == [
        {
            "level": "info",
            "event": "websocket closed",
            "source": "tap",
            "target": "chat",
            "code": "1009",
            "name": "Message Too Big",
            "class": "too_big",
            "initiator": "server",
            "reason": "message too big",
            "duration": 12.346,
            "client_to_server_bytes": 5000,
            "client_to_server_messages": 3,
            "client_to_server_largest_message": 4096,
            "server_to_client_bytes": 700,
            "server_to_client_messages": 2,
            "server_to_client_largest_message": 512,
            "client": "10.1.2.3:51234",
            "host": "chat.example.com",
            "path": "/ws/room",
            "user_agent": "okhttp/4.12",
            "subprotocol": "chat.v2",
            "transport_end_side": "server",
            "transport_end_kind": "fin",
        }
    ]


@pytest.mark.parametrize(
    ("code", "wire_code", "name", "logged_wire_code"),
    [
        ("1001", 1001, "Going Away", None),
        ("1005", None, "No Status Rcvd", None),
        ("1006", None, "Abnormal Closure", None),
        ("4xxx", 4123, "", 4123),
        ("invalid", 999, "", 999),
        ("4404", 4404, "", None),
        ("unknown", None, "", None),
    ],
)
def test_number_on_the_wire_is_logged_where_the_label_hides_it(
    logged: Log, code: str, wire_code: int | None, name: str, logged_wire_code: int | None
) -> None:
    """Folded and illegal codes keep their number in the log; names are those of registered codes."""
    event = Closed(ORIGIN, code, "application", "client", 0.0, wire_code=wire_code)
    (fields,) = emitted(logged.configure(), event)
    assert (fields["code"], fields["name"], fields.get("wire_code")) == (code, name, logged_wire_code)
    assert "transport_end_side" not in fields


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 61 + "x", "é" * 61 + "x"),
        ("é" * 62, "é" * 61),
        ("\U0001f600" * 31, "\U0001f600" * 30),
        ("\ud800" * 41, "\ud800" * 41),
    ],
)
def test_reason_is_cut_at_the_length_of_a_control_frame(logged: Log, reason: str, expected: str) -> None:
    """A reason has 123 bytes at most (RFC 6455 section 5.5), and is never cut inside a character."""
    (fields,) = emitted(logged.configure(), Closed(ORIGIN, "1000", "normal", "client", 1.0, reason=reason))
    assert fields["reason"] == expected


def test_long_texts_of_a_peer_are_cut(logged: Log) -> None:
    """A request head may be long; the line of its close is not."""
    long = "x" * 60_000
    peer = Peer("10.0.0.1:1", long, long, long, "y" * 512)
    (fields,) = emitted(logged.configure(), Closed(ORIGIN, "1000", "normal", "client", 1.0, peer=peer))
    assert [fields[key] for key in ("host", "path", "user_agent")] == ["x" * 509 + "..."] * 3
    assert fields["subprotocol"] == "y" * 512


@pytest.mark.parametrize("format", ["json", "console"])
def test_hostile_clients_cannot_forge_the_line(logged: Log, format: str) -> None:
    """Everything a client chooses freely may be hostile at once: the close is still one printable line."""
    text = "".join(HOSTILE.values())
    peer = Peer("10.0.0.1:1", text, text, text, text)
    logged.configure(format=format)
    EventLog().emit(Closed(ORIGIN, "1000", "normal", "client", 1.0, reason=text, peer=peer))
    (line,) = logged.lines()
    assert line.isprintable()


def test_only_our_own_faults_are_warnings(logged: Log) -> None:
    """A stream that we failed to read is a warning; TLS on the port, pings and handshakes are only counted."""
    (fields,) = emitted(
        logged.configure(),
        StreamUnparsed(ORIGIN, "tls"),
        StreamUnparsed(ORIGIN, "internal_error"),
        HandshakeEnded(ORIGIN, "accepted", "101", 0.01),
        PingAnswered(ORIGIN, "client", 0.01),
        AnomalySeen(ORIGIN, "client", "rsv_without_extension"),
    )
    assert fields == {
        "level": "warning",
        "event": "internal fault: a connection is relayed unread from here on",
        "source": "tap",
        "target": "chat",
    }


MASS_CLOSE: Final = MassClose(
    ORIGIN,
    "healthy",
    lasted=12.34567,
    lost=60,
    lost_by={("1001", "server"): 60},
    back=60,
    tried=60,
    returned={"1s": 12, "5s": 48},
    busiest_second=20,
    answered=66,
    rejected=6,
    gap=0.51234,
    draining=False,
    builds=(BuildReturns("acme-app/3", 60, 60, 40, 8, 2.34567, "jittered"),),
)
REFUSED: Final = MessageRefused(ORIGIN, "client_to_server", "close_1009", 4096, compressed=False, repeated=True)


def test_a_refused_message_is_one_line(logged: Log) -> None:
    """With its size in bytes, or null where it is not known."""
    known, unknown = emitted(logged.configure(), REFUSED, replace(REFUSED, size=0))
    assert unknown["size"] is None
    assert known == {
        "level": "info",
        "event": "message refused",
        "source": "tap",
        "target": "chat",
        "direction": "client_to_server",
        "evidence": "close_1009",
        "size": 4096,
        "compressed": False,
        "repeated": True,
    }


def test_a_mass_close_is_one_line(logged: Log) -> None:
    """Times are seconds with milliseconds, shares have three decimals."""
    (line,) = emitted(logged.configure(), MassCloseEnded(MASS_CLOSE))
    assert (line["event"], line["duration"], line["gap"], line["answered_per_returned"]) == (
        "mass close",
        12.346,
        0.512,
        1.1,
    )
    assert line["lost_by"] == {"1001 server": 60}
    assert line["builds"] == [
        {
            "build": "acme-app/3",
            "lost": 60,
            "returned": 60,
            "share_within_1s": 0.2,
            "median_delay": 2.346,
            "rhythm": "jittered",
        }
    ]


@pytest.mark.parametrize(
    ("verdict", "draining", "level"),
    [
        ("healthy", False, "info"),
        ("moved", True, "info"),
        ("moved", False, "warning"),
        ("too_few", False, "warning"),
        ("herd", False, "warning"),
        ("unrecovered", False, "warning"),
    ],
)
def test_a_mass_close_that_went_well_is_no_warning(logged: Log, verdict: Verdict, draining: bool, level: str) -> None:
    """Nor is the exporter's own shutdown."""
    over = replace(MASS_CLOSE, verdict=verdict, draining=draining)
    (line,) = emitted(logged.configure(), MassCloseEnded(over))
    assert line["level"] == level


DOCUMENTED = (Path(__file__).parent.parent / "docs/configuration.md").read_text().partition("\n## Logs\n")[2]


@pytest.mark.parametrize("event", [CLOSED, REFUSED, MassCloseEnded(MASS_CLOSE)], ids=lambda event: type(event).__name__)
def test_every_key_is_documented(logged: Log, event: Event) -> None:
    """In docs/configuration.md, in the table of its event, and no other."""
    (line,) = emitted(logged.configure(), event)
    table = DOCUMENTED.partition(f"`event` `{line['event']}`")[2].partition("|---|---|\n")[2].partition("\n\n")[0]
    documented = {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert line.keys() - {"level", "event"} == documented - {"wire_code"}


def test_closes_are_silent_above_info(logged: Log) -> None:
    """At level warning ordinary closes are not logged."""
    assert emitted(logged.configure(level="warning"), CLOSED) == []


def test_storm_of_closes_does_not_stall_the_loop(logged: Log) -> None:
    """Logging 5,000 closes takes this thread about 20 µs each; five times that would be a fault."""
    logged.configure()
    sink = EventLog()
    began = time.thread_time()
    for _ in range(5000):
        sink.emit(CLOSED)
    assert (time.thread_time() - began) / 5000 < 100e-6
