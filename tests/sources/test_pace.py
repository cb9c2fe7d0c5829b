"""How much of a side is read at once, by what its reads cost and by what is known of the bytes ahead."""

from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.pace import FIRST_READ, FORGIVEN, LEAST_READ, LONG, READ_SIZE, Pace

QUICK = LONG / 2
SLOW = LONG * 2


def after(*reads: tuple[float, float, int]) -> Pace:
    """The pace after reads that began at a time, took a time, and left so many bytes ahead."""
    pace = Pace()
    for began, took, ahead in reads:
        pace.observed(began, began + took, ahead)
    return pace


def test_at_first_little_is_read() -> None:
    """Nothing is known of a new connection."""
    assert (Pace().most, Pace().usual, Pace().large) == (FIRST_READ, True, False)


def test_what_is_ahead_is_read_at_once() -> None:
    """The next read takes it, the usual bytes behind it, and never more than fit."""
    assert after((0, QUICK, 1)).most == FIRST_READ + 1
    assert after((0, QUICK, 1000)).usual is False
    assert after((0, QUICK, READ_SIZE)).most == after((0, QUICK, 1 << 64)).most == READ_SIZE
    assert after((0, QUICK, 1 << 64), (1, QUICK, 0)).most == FIRST_READ


def test_slow_reads_make_the_next_ones_small() -> None:
    """Two or three of them suffice; what is ahead is read as ever."""
    told = [after(*[(0, SLOW, 0)] * count).most for count in range(1, 5)]
    assert told == [FIRST_READ // 4, FIRST_READ // 16, LEAST_READ, LEAST_READ]
    assert after(*[(0, SLOW, 50_000)] * 9).most == 50_000 + LEAST_READ


def test_a_slow_read_is_forgiven_after_a_while() -> None:
    """The while begins anew with each slow read, and ends at once."""
    slow = [(0.0, SLOW, 0), (30.0, SLOW, 0), (31.0, SLOW, 0)]
    assert after(*slow, (30.0 + FORGIVEN, QUICK, 0)).most == LEAST_READ
    assert after(*slow, (32.0 + FORGIVEN, QUICK, 0)).most == FIRST_READ
    assert after(*slow, (32.0 + FORGIVEN, SLOW, 0)).most == LEAST_READ


def test_a_look_ahead_is_worth_while_where_messages_are_large() -> None:
    """That is, larger than what is read anyway, and small enough for one read; the next look tells whether they are."""
    assert [after((0, QUICK, ahead)).large for ahead in (0, FIRST_READ, FIRST_READ + 1, READ_SIZE, READ_SIZE + 1)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    pace = after((0, QUICK, FIRST_READ + 1), (1, QUICK, 0))
    assert (pace.large, pace.usual, pace.most) == (True, True, FIRST_READ)
    pace.foreseen(65536)
    assert (pace.large, pace.usual, pace.most) == (True, False, 65536 + FIRST_READ)
    pace.foreseen(10)
    assert (pace.large, pace.usual, pace.most) == (False, False, 10 + FIRST_READ)
    pace.foreseen(1 << 20)
    assert (pace.large, pace.usual, pace.most) == (False, False, READ_SIZE)


def test_the_rest_of_a_message_that_is_too_large_for_one_read_is_no_reason_to_look_ahead() -> None:
    """Only how much was ahead where it began tells how large a message is."""
    assert after((0, QUICK, READ_SIZE + 50_000), (1, QUICK, 50_000), (2, QUICK, 0)).large is False


reads = st.lists(st.tuples(st.floats(0, 1000), st.sampled_from([QUICK, SLOW]), st.integers(0, 1 << 64)))


@given(reads, st.integers(0, 1 << 64))
def test_no_more_than_the_usual_is_read_beyond_what_is_known(
    history: list[tuple[float, float, int]], last: int
) -> None:
    """Whatever was read before, however large."""
    pace = after(*history, (0, QUICK, last))
    assert LEAST_READ <= pace.most <= min(READ_SIZE, last + FIRST_READ)
