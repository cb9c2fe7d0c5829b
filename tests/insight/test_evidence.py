"""What sizes of the last day show: ageing by the hour, and a bracket that is never inverted."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import Bracket, ClientKey
from exporter.insight.evidence import HOURS, Hours, Limit

DAY = 86_400.0
HOUR = 3_600.0

ALICE, BOB = ClientKey(1), ClientKey(2)

observations = st.lists(
    st.tuples(st.integers(0, 20_000), st.sampled_from(["accepted", ALICE, BOB, None]), st.integers(1, 9))
)
"""Seconds since the one before, that a message was accepted or who was refused it, and a size."""


def hours(*noted: tuple[float, int]) -> Hours:
    """What remembers these sizes, each noted at its second."""
    found = Hours(DAY)
    for now, size in noted:
        found.add(size, now)
    return found


def summary(found: Hours) -> tuple[int, int, int, int]:
    return found.count, found.sized, found.smallest, found.largest


def limit(*noted: tuple[float, str, int]) -> Limit:
    found = Limit(DAY)
    for now, what, size in noted:
        getattr(found, what)(size, now)
    return found


class TestHours:
    def test_nothing(self) -> None:
        """Without a message every number is 0, and there is no last one."""
        assert summary(hours()) == (0, 0, 0, 0)
        assert hours().last is None

    def test_sizes(self) -> None:
        """Count, smallest, largest and last go over all hours, in whatever order the sizes came."""
        found = hours((0.0, 50), (1.0, 20), (2.0, 30), (HOUR, 70), (3 * HOUR, 40))
        assert summary(found) == (5, 5, 20, 70)
        assert found.last == 3 * HOUR

    def test_unknown_sizes(self) -> None:
        """A message of unknown size is counted, but is neither the smallest nor the largest."""
        found = hours((0.0, 0), (1.0, 20), (2.0, 0), (HOUR, 0))
        assert summary(found) == (4, 1, 20, 20)
        assert found.last == HOUR

    def test_a_message_counts_for_24_hours(self) -> None:
        """It still counts after exactly 24 hours, and no more after that."""
        found = hours((100.0, 50))
        found.age(100.0 + DAY)
        assert summary(found) == (1, 1, 50, 50)
        found.age(100.5 + DAY)
        assert summary(found) == (0, 0, 0, 0)

    def test_an_hour_ages_as_one(self) -> None:
        """Messages within an hour of the first stay until the last of them is too old; later ones are on their own."""
        found = hours((0.0, 10), (HOUR - 1, 20), (HOUR, 30))
        found.age(DAY + HOUR - 1)
        assert summary(found) == (3, 3, 10, 30)
        found.age(DAY + HOUR)
        assert summary(found) == (1, 1, 30, 30)

    def test_memory_is_bounded(self) -> None:
        """However many messages come in however many days, few hours are kept."""
        found = Hours(DAY)
        for second in range(0, 5 * int(DAY), 60):
            found.add(second + 1, float(second))
            found.age(float(second))
            assert len(found._hours) <= HOURS + 2
        assert DAY / 60 <= found.count <= (DAY + HOUR) / 60 + 1

    def test_dropping(self) -> None:
        """The hours that are wrong go."""
        found = hours((0.0, 10), (HOUR, 20), (2 * HOUR, 0))
        found.drop(lambda hour: hour.smallest > 20)
        assert summary(found) == (3, 2, 10, 20)
        found.drop(lambda hour: hour.smallest > 10)
        assert summary(found) == (2, 1, 10, 10)
        found.drop(lambda hour: hour.smallest > 0)
        assert summary(found) == (1, 0, 0, 0)


class TestLimit:
    @pytest.mark.parametrize(
        ("noted", "expected"),
        [
            ([], Bracket()),
            ([(0.0, "accepted", 100)], Bracket(accepted=100)),
            ([(0.0, "refused", 100)], Bracket(rejected=100)),
            ([(0.0, "accepted", 100), (1.0, "accepted", 90)], Bracket(accepted=100)),
            ([(0.0, "refused", 100), (1.0, "refused", 110)], Bracket(rejected=100)),
            ([(0.0, "accepted", 100), (1.0, "refused", 101)], Bracket(100, 101)),
            ([(0.0, "refused", 101), (1.0, "accepted", 100)], Bracket(100, 101)),
        ],
    )
    def test_the_bracket(self, noted: list[tuple[float, str, int]], expected: Bracket) -> None:
        """It lies from the largest accepted to the smallest refused size; either may be unknown."""
        found = limit(*noted)
        assert found.bracket() == expected
        assert found.largest_accepted == (expected.accepted or 0)

    @pytest.mark.parametrize("size", [100, 101, 5000])
    def test_an_accepted_size_contradicts_smaller_refusals(self, size: int) -> None:
        """What was refused and is now accepted is no limit any more, an equal size included."""
        found = limit((0.0, "refused", 100), (1.0, "accepted", size))
        assert found.bracket() == Bracket(accepted=size, contradicted=True)

    @pytest.mark.parametrize("size", [100, 99, 1])
    def test_two_refused_sizes_contradict_larger_accepted_ones(self, size: int) -> None:
        """What was accepted and is now refused to two clients is not acceptable any more, an equal size included."""
        found = limit((0.0, "accepted", 100), (1.0, "refused", size))
        assert found.bracket() == Bracket(accepted=100, contradicted=True)
        found.refused(size, 2.0)
        assert found.bracket() == Bracket(rejected=size, contradicted=True)

    def test_one_client_contradicts_nobody(self) -> None:
        """However often it says that it was refused; but it is told that sizes were both accepted and refused."""
        found = limit((0.0, "accepted", 100))
        for second in range(5):
            found.refused(50 - second, float(second), ALICE)
            assert found.bracket() == Bracket(accepted=100, contradicted=True)
        found.refused(80, 5.0, BOB)
        assert found.bracket() == Bracket(rejected=80, contradicted=True)

    def test_two_agree_on_the_larger_size(self) -> None:
        """What only one of them was refused may still be accepted, whichever came first, and whatever came between."""
        for first, second in ((20, 80), (80, 20)):
            found = limit((0.0, "accepted", 50), (HOUR, "accepted", 100))
            found.refused(first, HOUR + 1, ALICE)
            found.refused(90, HOUR + 2, ALICE)
            found.refused(second, HOUR + 3, BOB)
            assert found.bracket() == Bracket(50, 80, contradicted=True)
            found.refused(30, HOUR + 4, BOB if first == 20 else ALICE)
            assert found.bracket() == Bracket(rejected=30, contradicted=True)

    def test_what_is_accepted_in_between_ends_a_doubt(self) -> None:
        """Then the next refusal is the first again; a smaller accepted size says nothing about it."""
        for between, accepted in ((50, 100), (49, None)):
            found = limit((0.0, "accepted", 100))
            found.refused(50, 1.0, ALICE)
            found.accepted(between, 2.0)
            found.refused(50, 3.0, BOB)
            assert found.bracket().accepted == (accepted or None)

    def test_a_doubt_counts_for_24_hours(self) -> None:
        """Exactly that included."""
        for later, accepted in ((DAY, None), (DAY + 0.5, 100)):
            found = limit((0.0, "accepted", 100), (HOUR, "accepted", 100))
            found.refused(50, HOUR + 1.0, ALICE)
            for hour in range(2, 26):
                found._accepted.add(100, hour * HOUR)  # without a word about the doubt
            found.refused(50, HOUR + 1.0 + later, BOB)
            assert found.bracket().accepted == accepted

    def test_what_is_not_contradicted_stays(self) -> None:
        """Only the hours that hold a contradicted size lose it."""
        found = limit((0.0, "refused", 300), (HOUR, "refused", 100), (2 * HOUR, "accepted", 200))
        assert found.bracket() == Bracket(200, 300, contradicted=True)
        found = limit((0.0, "accepted", 100), (HOUR, "accepted", 300), *[(2 * HOUR, "refused", 200)] * 2)
        assert found.bracket() == Bracket(100, 200, contradicted=True)

    def test_a_contradiction_is_told_for_24_hours(self) -> None:
        """From the last one on, exactly 24 hours included."""
        found = limit((0.0, "accepted", 100), *[(1.0, "refused", 50)] * 2, (10.0, "accepted", 60))
        found.age(DAY + 10.0)
        assert found.bracket() == Bracket(accepted=60, contradicted=True)
        found.age(DAY + 10.5)
        assert found.bracket() == Bracket()

    @pytest.mark.parametrize(("what", "size"), [("accepted", 100), ("refused", 100)])
    def test_old_evidence_contradicts_nothing(self, what: str, size: int) -> None:
        """A size that was seen more than 24 hours ago is forgotten, not contradicted, even if no time was told."""
        other = "refused" if what == "accepted" else "accepted"
        found = limit((0.0, what, size), (DAY + 0.5, other, size))
        assert not found.bracket().contradicted
        assert limit((0.0, what, size), (DAY, other, size)).bracket().contradicted

    @given(observations)
    def test_the_bracket_is_never_inverted(self, seen: list[tuple[int, str | ClientKey | None, int]]) -> None:
        """Whatever was seen in whatever order: accepted is below rejected, and the newest observation holds.

        A refusal that contradicts holds as far as another one since the last acceptance as large agrees.
        """
        found = Limit(DAY)
        times = accumulate(pause for pause, _, _ in seen)
        for now, (_, what, size) in zip(times, seen, strict=True):
            found.age(float(now))
            before = found.bracket().accepted or 0
            if isinstance(what, str):
                found.accepted(size, float(now))
            else:
                found.refused(size, float(now), what)
            bracket = found.bracket()
            assert bracket.accepted is None or bracket.rejected is None or bracket.accepted < bracket.rejected
            if what == "accepted":
                assert bracket.accepted is not None
                assert bracket.accepted >= size
            elif before < size:
                assert bracket.rejected is not None
                assert bracket.rejected <= size
            else:
                assert bracket.contradicted or not bracket.accepted
