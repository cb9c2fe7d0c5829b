"""Which clients are refused again, and which are stuck: windows and their bounds, memory, any history."""

import random
import tracemalloc
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from exporter.events import EVIDENCES, ClientKey, Evidence
from exporter.insight.repeats import STEPS, Repeats

ALICE, BOB = ClientKey(1), ClientKey(2)

steps = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 6).map(ClientKey), st.sampled_from(EVIDENCES)),
        st.sampled_from([1, 60, 299, 300, 301, 449, 450, 600, 899, 900, 901, 2000]),
    ),
    max_size=60,
)
"""A refusal of a client, or seconds that pass."""


def repeats(most_clients: int = 1000) -> Repeats:
    return Repeats(most_clients, repeat=300.0, stuck=900.0, refusals=3)


class Model:
    """The same from a list of everything that ever happened."""

    def __init__(self) -> None:
        self.times: dict[tuple[ClientKey, Evidence], list[int]] = defaultdict(list)

    def refused(self, client: ClientKey, evidence: Evidence, now: int) -> bool:
        times = self.times[client, evidence]
        times.append(now)
        return len(times) > 1 and now - times[-2] <= 300

    def stuck(self, now: int) -> int:
        recent = {kind: sum(now - time <= 900 for time in times) for kind, times in self.times.items()}
        return len({client for (client, _), count in recent.items() if count >= 3})


@given(steps)
def test_any_history(history: list[tuple[ClientKey, Evidence] | int]) -> None:
    """Repeats and stuck clients are what a complete list of refusals gives, whenever the clock ticks."""
    found, model, now = repeats(), Model(), 0
    for step in history:
        if isinstance(step, int):
            now += step
            found.tick(float(now))
        else:
            assert found.refused(*step, float(now)) == model.refused(*step, now)
        assert found.stuck(float(now)) == model.stuck(now)


@given(steps)
def test_any_history_without_ticks(history: list[tuple[ClientKey, Evidence] | int]) -> None:
    """The answers do not rest on the ticks: those only free memory."""
    found, model, now = repeats(), Model(), 0
    for step in history:
        if isinstance(step, int):
            now += step
        else:
            assert found.refused(*step, float(now)) == model.refused(*step, now)
        assert found.stuck(float(now)) == model.stuck(now)


def test_a_repeat_comes_within_five_minutes() -> None:
    """Of the client's last refusal, exactly 300 s included; not of an earlier one, nor of another client's."""
    found = repeats()
    refusals = [(ALICE, 0.0), (BOB, 1.0), (ALICE, 300.0), (ALICE, 600.5), (ALICE, 900.5)]
    assert [found.refused(client, "close_1009", now) for client, now in refusals] == [False, False, True, False, True]


def test_a_repeat_is_of_one_evidence() -> None:
    """A suspected refusal after a certain one is no repeat, nor the other way round."""
    found = repeats()
    refusals: list[tuple[Evidence, float]] = [("close_1009", 0.0), ("suspected", 1.0), ("close_1009", 2.0)]
    assert [found.refused(ALICE, *refusal) for refusal in refusals] == [False, False, True]


def test_stuck_with_the_third_refusal() -> None:
    """Three refusals in 15 minutes, exactly 900 s included: from the third on, until the first of them is older."""
    found = repeats()
    stuck = []
    for now in (0.0, 400.0, 900.0):
        found.refused(ALICE, "close_1009", now)
        found.tick(now)
        stuck.append(found.stuck(now))
    assert stuck == [0, 0, 1]
    assert found.stuck(901.0) == 0


def test_not_stuck_with_three_refusals_in_more_than_15_minutes() -> None:
    """901 s from the first to the third are too many; a fourth that is near enough makes up for it."""
    found = repeats()
    for now in (0.0, 450.0, 901.0):
        found.refused(ALICE, "close_1009", now)
    assert found.stuck(901.0) == 0
    found.refused(ALICE, "close_1009", 1000.0)
    assert (found.stuck(1000.0), found.stuck(1350.0), found.stuck(1351.0)) == (1, 1, 0)


def test_stuck_by_either_evidence() -> None:
    """Two certain refusals and two suspected ones are no three; three of each are one stuck client."""
    found = repeats()
    for now in (0.0, 1.0):
        for evidence in EVIDENCES:
            found.refused(ALICE, evidence, now)
    assert found.stuck(1.0) == 0
    for evidence in EVIDENCES:
        found.refused(ALICE, evidence, 2.0)
        assert found.stuck(2.0) == 1


def test_a_stuck_client_leaves_the_count_once() -> None:
    """However often it is refused, it counts as one, and as none a quarter of an hour after its third last refusal."""
    found = repeats()
    for second in range(1000):
        found.refused(ALICE, "close_1009", float(second))
        found.tick(float(second))
        assert found.stuck(float(second)) == (second >= 2)
    assert (found.stuck(997.0 + 900), found.stuck(997.0 + 901)) == (1, 0)


def test_many_clients_in_bounded_memory() -> None:
    """However many clients are refused, few more than `most_clients` are remembered, or can be stuck."""
    for most_clients in (2, 100, 1000):
        found = repeats(most_clients)
        for number in range(4 * most_clients):
            for _ in range(3):
                found.refused(ClientKey(number), "close_1009", 0.0)
            assert len(found) <= most_clients + 1
            assert len(found) <= found.stuck(0.0) <= 3 * most_clients // 2 + 1
        assert len(found) >= most_clients // 2


def test_who_is_forgotten_is_not_stuck() -> None:
    """It is taken off the count, in a moment, also if the others are no loops."""
    found = repeats(100)
    for _ in range(3):
        found.refused(ALICE, "close_1009", 0.0)
    for number in range(300):
        found.refused(ClientKey(number + 10), "close_1009", 1.0)
    assert found.stuck(1.0) == 0
    assert not found.refused(ALICE, "close_1009", 1.0)


def test_a_looping_client_is_remembered_in_a_crowd() -> None:
    """A client that is refused again and again stays known while others pass by that were refused once."""
    found = repeats(100)
    found.refused(ALICE, "close_1009", 0.0)
    for number in range(10_000):
        found.refused(ClientKey(number + 10), "close_1009", 0.0)
        if number % 40 == 0:
            assert found.refused(ALICE, "close_1009", 0.0)
    assert found.stuck(0.0) == 1


def test_a_scrape_adds_up_few_numbers() -> None:
    """Stuck clients are counted by the second: not one number for each client, nor for each second ever."""
    found = repeats(100_000)
    for second in range(3 * STEPS):
        for client in range(8):
            found.refused(ClientKey(client * 10_000 + second // 9), "close_1009", float(second))
        found.tick(float(second))
        assert len(found._counts._counts) <= STEPS + 1


def test_bytes_for_a_client() -> None:
    """A remembered client in a loop takes at most 300 bytes, its key and the times of its refusals included."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        found = repeats(120_000)
        draw = random.Random(1)
        keys = [ClientKey(draw.getrandbits(56)) for _ in range(50_000)]
        for refusal in range(3):
            for number, key in enumerate(keys):
                found.refused(key, "close_1009", refusal * 100.0 + number / 1000)
        del key, keys
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == found.stuck(250.0) == 50_000
    assert (after - before) / len(found) <= 300
