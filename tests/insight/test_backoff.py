"""When to reconnect: bounds, spread and reset of the delays, for any policy and any fate."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.insight.backoff import Backoff, Policy

policies = st.builds(
    Policy,
    first=st.floats(0, 60),
    floor=st.floats(0, 1),
    base=st.floats(0.1, 10),
    cap=st.floats(1, 600),
    stable=st.floats(1, 300),
)
fates = st.lists(st.one_of(st.none(), st.floats(0, 600)), max_size=80)
"""How long each connection lived, in seconds; None for one that never opened."""


class Recorded:
    """A `uniform` that draws at one share of its range, and remembers the ranges it was asked for."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.ranges: list[tuple[float, float]] = []

    def __call__(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return low + self.share * (high - low)


def ranges(policy: Policy, fates: list[float | None]) -> list[tuple[float, float]]:
    """The range from which each delay is drawn."""
    uniform = Recorded(0.5)
    backoff = Backoff(uniform, policy)
    for lived in fates:
        backoff.after(lived)
    return uniform.ranges


@given(policies, fates, st.integers())
def test_delays_stay_within_their_bounds(policy: Policy, fates: list[float | None], seed: int) -> None:
    """The first delay of a series lies in 0..first; every later one neither below the floor nor above the cap."""
    backoff = Backoff(random.Random(seed).uniform, policy)
    since_stable = 0
    for lived in fates:
        since_stable = 1 if lived is not None and lived >= policy.stable else since_stable + 1
        delay = backoff.after(lived)
        low, high = (0.0, policy.first) if since_stable == 1 else (policy.floor, policy.cap)
        assert low <= delay <= high + 1e-9


@given(policies, fates)
def test_only_a_stable_connection_resets_the_series(policy: Policy, fates: list[float | None]) -> None:
    """A connection that was accepted and soon dropped counts as one more failure, as does one that never opened."""
    stable = [lived is not None and lived >= policy.stable for lived in fates]
    drawn = ranges(policy, fates)
    for number, (low, high) in enumerate(drawn):
        if number == 0 or stable[number]:
            assert (low, high) == (0.0, policy.first)
        else:
            assert low == policy.floor


@given(policies, st.integers(2, 200))
def test_the_ceiling_doubles_up_to_the_cap(policy: Policy, failures: int) -> None:
    """Each range is twice as high as the one before, until it reaches the cap, where it stays."""
    ceilings = [high for _, high in ranges(policy, [None] * failures)][1:]
    expected = policy.base
    for ceiling in ceilings:
        assert ceiling == pytest.approx(max(policy.floor, min(policy.cap, expected)))
        expected = min(expected * 2, policy.cap * 2)


def test_the_usual_series() -> None:
    """Without a policy of one's own: 0-5 s first, then up to 1, 2, 4, 8, 16, 32, 60 and 60 s, never under 0.1 s."""
    assert ranges(Policy(), [300.0] + [None] * 8) == [
        (0.0, 5.0),
        *((0.1, ceiling) for ceiling in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)),
    ]


@pytest.mark.parametrize("failures", [0, 1, 5, 20])
def test_clients_cut_at_once_do_not_return_at_once(failures: int) -> None:
    """Delays of many clients in the same situation are spread over the whole window, first delays included."""
    draw = random.Random(failures).uniform
    delays = [Backoff(draw, failures=failures).after(None) for _ in range(2000)]
    top = {0: 5.0, 1: 1.0, 5: 16.0, 20: 60.0}[failures]
    tenths = [0] * 10
    for delay in delays:
        tenths[min(9, int(delay / top * 10))] += 1
    # Of 2000 draws 200 are expected in each tenth (180 in the lowest of 0.1-1 s); five standard deviations are 67.
    assert all(count >= 133 for count in tenths[1:])
    assert max(tenths) <= 300


def test_a_client_may_fail_for_years() -> None:
    """The delay neither overflows nor exceeds the cap after any number of failures."""
    backoff = Backoff(Recorded(1.0), failures=10**9)
    assert backoff.after(None) == 60.0
    assert backoff.failures == 10**9 + 1


@given(st.floats(0, 29.999))
def test_a_server_that_accepts_and_refuses_does_not_reset(lived: float) -> None:
    """However often a connection opens, under 30 s it was not stable, and the delay grows on."""
    assert [high for _, high in ranges(Policy(), [lived] * 5)] == [5.0, 1.0, 2.0, 4.0, 8.0]


def test_exactly_stable_is_stable() -> None:
    """The bound is inclusive."""
    assert [high for _, high in ranges(Policy(), [None, None, 30.0, None])] == [5.0, 1.0, 5.0, 1.0]
