"""When a probe tries again: within bounds, spread over them, and never as often as could hurt."""

import asyncio
import random
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection

from exporter.config.probe_section import LEAST_HOLD
from exporter.config.probes import ProbeConfig
from exporter.events import ProbeFailed, ProbeWaits
from exporter.sources.probe.opening import Opener
from exporter.sources.probe.probe import Probe, Tools
from exporter.sources.probe.schedule import ASKED_FOR, MAX_RETRY_AFTER, POLICY, Ended, Schedule, retry_after
from tests.sources.probing import VOCABULARY, Seen, answering, configured, frames, serving, upgrading
from tests.support.loops import conversation, eventually
from tests.support.services import service
from tests.wire.support import close

MINUTE: Final = 60.0
FAILS: Final = Ended()
HELD: Final = Ended(LEAST_HOLD, planned=True)
MOST: Final = 10
"""Connections that a service may see of one probe in any minute."""

FATES: Final = st.builds(
    Ended,
    lived=st.one_of(st.none(), st.floats(0, 120)),
    code=st.one_of(st.none(), st.sampled_from([1000, 1001, 1011, 1012, 1013])),
    retry_after=st.one_of(st.none(), st.floats(0, 10_000)),
)
PLANNED: Final = st.builds(Ended, lived=st.floats(LEAST_HOLD, 120), planned=st.just(True))


@given(st.lists(FATES, max_size=60), st.integers())
def test_delays_stay_within_their_bounds(fates: list[Ended], seed: int) -> None:
    """The first delay of a series lies in 0-5 s, later ones in 7-60 s, unless the service asks for more."""
    schedule = Schedule(random.Random(seed).uniform)
    assert 0.0 <= schedule.first() <= POLICY.first
    since_stable = 0
    for ended in fates:
        stable = ended.lived is not None and ended.lived >= POLICY.stable
        since_stable = 1 if stable else since_stable + 1
        delay = schedule.after(ended)
        low, high = (0.0, POLICY.first) if since_stable == 1 else (POLICY.floor, POLICY.cap)
        asked_low, asked_high = ASKED_FOR.get(ended.code or 0, (0.0, 0.0))
        retry = min(ended.retry_after or 0.0, MAX_RETRY_AFTER)
        assert max(low, asked_low, retry) <= delay <= max(high, asked_high, retry + POLICY.first) + 1e-9


@given(st.lists(st.one_of(FATES, PLANNED, st.sampled_from([FAILS, HELD])), max_size=60), st.integers())
@example([FAILS, HELD] * 30, 0)
@example([HELD, FAILS] * 30, 0)
def test_any_minute_holds_ten_attempts_at_most(fates: list[Ended], seed: int) -> None:
    """Whatever becomes of the attempts, and however unlucky the draws, no minute holds more than ten of them."""
    for uniform in (random.Random(seed).uniform, lambda low, high: low):
        moments = starts(uniform, fates)
        assert all(later - moment >= MINUTE for moment, later in zip(moments, moments[MOST:], strict=False))


def starts(uniform: Callable[[float, float], float], fates: list[Ended]) -> list[float]:
    """When attempts begin that end so."""
    schedule = Schedule(uniform)
    moments = [0.0]
    for ended in fates:
        moments.append(moments[-1] + (ended.lived or 0.0) + schedule.after(ended))
    return moments


@pytest.mark.parametrize(
    ("failures", "low", "high"), [(0, 0.0, 5.0), (1, 7.0, 14.0), (2, 7.0, 28.0), (3, 7.0, 56.0), (9, 7.0, 60.0)]
)
def test_delays_are_spread_over_the_whole_window(failures: int, low: float, high: float) -> None:
    """Probes that were cut at once do not come back at once, after any number of failures."""
    draw = random.Random(failures).uniform
    tenths = [0] * 10
    for _ in range(2000):
        schedule = Schedule(draw)
        delay = [schedule.after(Ended()) for _ in range(failures + 1)][-1]
        tenths[min(9, int((delay - low) / (high - low) * 10))] += 1
    # 200 are expected in each; five standard deviations are 67.
    assert all(133 <= count <= 267 for count in tenths)


def test_only_a_stable_connection_ends_a_series() -> None:
    """Connections under 30 s are failures as attempts are; a longer one begins anew."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    schedule = Schedule(uniform)
    for lived in (None, 29.9, None, 30.0, 0.0):
        schedule.after(Ended(lived))
    assert drawn == [(0.0, 5.0), (7.0, 14.0), (7.0, 28.0), (0.0, 5.0), (7.0, 14.0)]


def test_a_planned_end_is_no_failure() -> None:
    """A connection that the probe itself ended is followed by another in 0-5 s; one under 30 s ends no series."""
    schedule = Schedule(lambda low, high: high)
    schedule.after(Ended())
    assert [schedule.after(Ended(10.0, planned=True)) for _ in range(3)] == [5.0] * 3
    assert schedule.after(Ended()) == 14.0
    assert schedule.after(Ended(30.0, planned=True)) == 5.0
    assert schedule.after(Ended()) == 5.0


@pytest.mark.parametrize(("code", "low", "high"), [(1012, 5.0, 30.0), (1013, 30.0, 60.0)])
def test_a_service_that_asks_for_time_gets_it(code: int, low: float, high: float) -> None:
    """After 1012 Service Restart and 1013 Try Again Later the first delay is a longer one, and still random."""
    draw = random.Random(code).uniform
    delays = [Schedule(draw).after(Ended(3600.0, code=code)) for _ in range(500)]
    assert low <= min(delays) < low + 1
    assert high - 1 < max(delays) <= high


NOW: Final = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (formatdate(NOW + 60, usegmt=True), 60.0),
        (formatdate(NOW - 60, usegmt=True), 0.0),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("1e9", None),
        ("\u0661", None),
        ("soon", None),
        ("9" * 400, None),
        ("Fri, 32 Jan 2027 08:01:00 GMT", None),
        ("Fri, 15 Jan 99999 08:01:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Seconds, or an HTTP date against the wall clock (RFC 9110 section 10.2.3); anything else says nothing."""
    assert retry_after(value, NOW) == seconds


@given(st.text(max_size=60))
def test_retry_after_takes_whatever_comes(value: str) -> None:
    """No header of a service can do harm."""
    found = retry_after(value, NOW)
    assert found is None or found >= 0.0


# -- with a real service, without the waiting


class Clockwork:
    """Waits in no time, and knows how late it would be."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def a_probe(config: ProbeConfig, seen: Seen, clockwork: Clockwork, seed: int) -> Probe:
    tools = Tools(Opener(lambda: clockwork.now, lambda: NOW), random.Random(seed).uniform, clockwork.sleep)
    return Probe(config, VOCABULARY, seen, tools)


async def minutes(config: ProbeConfig, seed: int, count: int) -> list[float]:
    """When each of the first `count` attempts began, on the clockwork."""
    seen, clockwork = Seen(), Clockwork()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(a_probe(config, seen, clockwork, seed).run())
        await seen.several(ProbeFailed, count)
        running.cancel()
    waits = [wait.delay for wait in seen.of(ProbeWaits)]
    return [sum(waits[: number + 1]) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
@conversation
async def test_a_service_that_accepts_and_closes_at_once(seed: int) -> None:
    """It sees ten connections in the first minute at most, and then no more than one in seven seconds."""
    connections = 0

    async def refuse(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.close(1011)

    async with service(refuse) as (_, address):
        moments = await minutes(configured(address), seed, 20)
    assert connections >= 20
    assert sum(moment - moments[0] < MINUTE for moment in moments) <= MOST
    assert all(later - moment >= POLICY.floor for moment, later in pairwise(moments[1:]))


@conversation
async def test_delays_grow_while_a_service_fails() -> None:
    """A service that answers with errors is left alone for longer and longer."""
    async with serving(answering("HTTP/1.1 500 Broken\r\n\r\n")) as address:
        moments = await minutes(configured(address), 1, 30)
    gaps = [later - moment for moment, later in pairwise(moments)]
    assert sum(gaps[20:]) / len(gaps[20:]) > 2 * sum(gaps[:2]) / 2
    assert max(gaps) <= POLICY.cap


@conversation
async def test_a_restart_is_given_time() -> None:
    """A 1012 of the service gives it 5-30 s before the probe is back."""
    async with serving(upgrading(close(1012))) as address:
        moments = await minutes(configured(address), 7, 2)
    assert 5.0 <= moments[1] - moments[0] <= 30.0


@conversation
async def test_one_connection_at_a_time() -> None:
    """However a service ends connections, the next one comes when the last is gone."""
    open_now = most = total = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most, total
        open_now, total = open_now + 1, total + 1
        most = max(most, open_now)
        try:
            await upgrading(close(1001), stay=False)(reader, writer)
            async for _ in frames(reader):
                await asyncio.sleep(random.uniform(0.0, 0.01))  # before TCP ends
                break
        finally:
            open_now -= 1

    seen, clockwork = Seen(), Clockwork()
    async with serving(counts) as address, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(a_probe(configured(address), seen, clockwork, 3).run())
        await eventually(lambda: total >= 30)
        running.cancel()
    assert most == 1
