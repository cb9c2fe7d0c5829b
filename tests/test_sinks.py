"""One event to all who want it."""

import pytest
from structlog.testing import capture_logs

from exporter.events import Event, Listener, Origin, StreamUnparsed
from exporter.sinks import TOLD_AGAIN, Sinks

EVENT = StreamUnparsed(Origin("tap", "chat"), "tls")


class Heard(Listener):
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.handlers = {StreamUnparsed: self.events.append}


class Faulty(Listener):
    def __init__(self) -> None:
        self.handlers = {StreamUnparsed: self.fail}

    def fail(self, event: Event) -> None:
        raise ZeroDivisionError("as asked")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_sink_that_fails_keeps_nothing_from_the_others() -> None:
    """Those before and behind it hear the event, who emits it notices nothing, and it is counted and told."""
    clock, first, last, dropped = Clock(), Heard(), Heard(), []
    sinks = Sinks(clock, lambda: dropped.append(clock.now))
    for listener in (first, Faulty(), last):
        sinks.add(listener)
    assert sinks.last_event < clock.now
    with capture_logs() as told:
        sinks.emit(EVENT)
    assert first.events == last.events == [EVENT]
    assert (dropped, sinks.last_event) == ([100.0], 100.0)
    assert [(entry["log_level"], entry["event"]) for entry in told] == [
        ("error", "an event could not be taken in, its effect is lost")
    ]


def test_it_is_told_once_a_second() -> None:
    """One cause may hit every event; each is counted all the same."""
    clock, dropped = Clock(), []
    sinks = Sinks(clock, lambda: dropped.append(clock.now))
    sinks.add(Faulty())
    with capture_logs() as told:
        for _ in range(10):
            sinks.emit(EVENT)
        clock.now += TOLD_AGAIN
        sinks.emit(EVENT)
    assert (len(dropped), len(told)) == (11, 2)


@pytest.mark.parametrize(("step", "result", "lines"), [(lambda: 7, 7, 0), (lambda: 7 // 0, -1, 1)])
def test_a_step_that_fails(step: object, result: int, lines: int) -> None:
    """Something else stands for what it would have given."""
    sinks = Sinks(Clock(), lambda: None)
    with capture_logs() as told:
        assert sinks.guarded(step, -1) == result  # type: ignore[arg-type]
    assert len(told) == lines
