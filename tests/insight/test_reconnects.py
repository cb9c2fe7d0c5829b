"""Who came back, and how long after their close."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import AFTERS, ClientKey
from exporter.insight.reconnects import TOKEN_LIFE, CameBack, Reconnects

ANN, BOB = ClientKey(1), ClientKey(2)


def known(most: int = 1000) -> Reconnects:
    return Reconnects(most)


@pytest.mark.parametrize(
    ("close_class", "after"),
    [
        ("going_away", "going_away"),
        ("abnormal", "abnormal"),
        ("too_big", "too_big"),
        ("normal", "other"),
        ("internal_error", "other"),
        ("unknown", "other"),
    ],
)
def test_a_close_leaves_a_token_for_the_next_attempt(close_class: str, after: str) -> None:
    """The client's next attempt takes it, with the time since; the one after that comes back from nothing."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.ended(ANN, close_class, 10.0)
    assert clients.attempted(BOB, 11.0) is None
    assert clients.attempted(ANN, 12.5) == CameBack(after, 2.5)
    assert clients.attempted(ANN, 13.0) is None


def test_a_client_that_never_left_comes_back_from_nothing() -> None:
    """First attempts are no reconnects."""
    clients = known()
    assert clients.attempted(ANN, 1.0) is None
    clients.opened(ANN, 1.0)
    assert clients.attempted(ANN, 2.0) is None


@pytest.mark.parametrize(("later", "came"), [(TOKEN_LIFE, True), (TOKEN_LIFE + 0.1, False)])
def test_a_token_waits_ten_minutes(later: float, came: bool) -> None:
    """After that whoever comes is a new visitor."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.ended(ANN, "normal", 5.0)
    assert (clients.attempted(ANN, 5.0 + later) is not None) == came
    assert clients.attempted(ANN, 5.0 + later) is None


def test_an_expired_token_does_not_wait_behind_a_new_one() -> None:
    """A client whose attempts were not seen has one token again, not two."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.ended(ANN, "going_away", 0.0)
    clients.ended(ANN, "normal", TOKEN_LIFE + 1)
    assert clients.attempted(ANN, TOKEN_LIFE + 2) == CameBack("other", 1.0)
    assert clients.attempted(ANN, TOKEN_LIFE + 3) is None


def test_an_attempt_before_its_close_was_seen_has_no_negative_delay() -> None:
    """A client may be back before the exporter has heard the end of its old connection."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.ended(ANN, "abnormal", 10.0)
    assert clients.attempted(ANN, 9.9) == CameBack("abnormal", 0.0)


def test_a_key_that_several_hold_tells_no_delay() -> None:
    """Three behind one address: each is counted once when it comes back, and none has a delay."""
    clients = known()
    for _ in range(3):
        clients.opened(ANN, 0.0)
    assert clients.shared(ANN, 0.0)
    for _ in range(3):
        clients.ended(ANN, "going_away", 10.0)
    assert [clients.attempted(ANN, 11.0) for _ in range(4)] == [CameBack("going_away", None)] * 3 + [None]


def test_each_kind_of_close_of_a_shared_key_is_taken_as_often_as_it_happened() -> None:
    """Reconnects are never more than closes, kind by kind."""
    clients = known()
    for _ in range(3):
        clients.opened(ANN, 0.0)
    for close_class in ("normal", "abnormal", "normal"):
        clients.ended(ANN, close_class, 1.0)
    came = [clients.attempted(ANN, 2.0) for _ in range(4)]
    assert sorted(back.after for back in came if back) == ["abnormal", "other", "other"]
    assert came[3] is None


@pytest.mark.parametrize(("later", "shared"), [(TOKEN_LIFE, True), (TOKEN_LIFE + 0.1, False)])
def test_a_key_counts_as_shared_for_ten_minutes_after(later: float, shared: bool) -> None:
    """Of a person's two tabs that are closed one after the other, the second tells nothing either; later it may."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.opened(ANN, 1.0)
    clients.ended(ANN, "normal", 100.0)
    assert clients.shared(ANN, 100.0 + later) == shared
    clients.ended(ANN, "normal", 100.0 + later)
    back = clients.attempted(ANN, 101.0 + later)
    assert back is not None
    assert (back.delay is None) == shared


def test_tokens_of_a_shared_key_expire() -> None:
    """A close every half minute for hours, and hardly anybody comes back: old closes wait for nobody."""
    clients = known()
    for _ in range(1000):
        clients.opened(ANN, 0.0)
    for close in range(900):
        clients.ended(ANN, "normal", 30.0 * close)
    now = 30.0 * 900
    came = sum(clients.attempted(ANN, now) is not None for _ in range(900))
    assert TOKEN_LIFE / 2 / 30 <= came <= TOKEN_LIFE / 30


def test_two_tabs_whose_tokens_were_taken_are_still_two_tabs() -> None:
    """That the key was shared is not forgotten with the last token."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.opened(ANN, 0.0)
    clients.ended(ANN, "going_away", 100.0)
    clients.ended(ANN, "going_away", 100.0)
    assert [clients.attempted(ANN, 101.0) for _ in range(3)] == [CameBack("going_away", None)] * 2 + [None]
    clients.opened(ANN, 102.0)
    clients.ended(ANN, "going_away", 103.0)
    assert clients.attempted(ANN, 104.0) == CameBack("going_away", None)


@pytest.mark.parametrize(("since", "one"), [(10.0, True), (10.1, False)])
def test_a_successor(since: float, one: bool) -> None:
    """The second of two connections of a key that was accepted shortly before the first ends."""
    clients = known()
    assert not clients.replaced(ANN, 0.0, 10.0)
    clients.opened(ANN, 0.0)
    assert not clients.replaced(ANN, 1.0, 10.0)
    clients.opened(ANN, 100.0)
    assert clients.replaced(ANN, 100.0 + since, 10.0) == one
    clients.opened(ANN, 100.0)
    assert not clients.replaced(ANN, 100.0, 10.0)


def test_a_close_that_leaves_no_token() -> None:
    """Its client is back already, and alone again."""
    clients = known()
    clients.opened(ANN, 0.0)
    clients.opened(ANN, 5.0)
    clients.ended(ANN, "abnormal", 6.0, token=False)
    assert clients.holds(ANN)
    assert not clients.shared(ANN, 6.0)
    assert clients.attempted(ANN, 7.0) is None


def test_connections_of_shared_keys() -> None:
    """Only keys that several hold at this moment count, with all of their connections."""
    clients = known()
    seen = []
    for client in (ANN, ANN, ANN, BOB):
        clients.opened(client, 0.0)
        seen.append(clients.shared_connections)
    for client in (BOB, ANN, ANN, ANN, ANN):
        clients.ended(client, "normal", 1.0)
        seen.append(clients.shared_connections)
    assert seen == [0, 2, 3, 3, 3, 2, 0, 0, 0]


def test_what_is_held_is_known_while_it_is_open() -> None:
    """A client whose opening was seen is held until as many ends were."""
    clients = known()
    assert not clients.holds(ANN)
    clients.opened(ANN, 0.0)
    assert clients.holds(ANN)
    clients.ended(ANN, "normal", 1.0)
    assert not clients.holds(ANN)


def test_a_forgotten_client_leaves_no_shared_connections_behind() -> None:
    """Beyond the bound the oldest are forgotten, and what was counted for them is taken back."""
    clients = known(10)
    clients.opened(ANN, 0.0)
    clients.opened(ANN, 0.0)
    for key in range(10, 100):
        clients.opened(ClientKey(key), 0.0)
        clients.ended(ClientKey(key), "normal", 0.0)
    assert len(clients) <= 11
    assert clients.shared_connections == 0
    clients.ended(ANN, "normal", 1.0)
    assert clients.shared_connections == 0


@given(st.lists(st.tuples(st.sampled_from(["open", "end", "try"]), st.integers(0, 3), st.sampled_from(AFTERS))))
def test_reconnects_are_never_more_than_closes(steps: list[tuple[str, int, str]]) -> None:
    """Whatever the order, kind by kind; and shared connections are what a list of open ones says."""
    clients = known()
    closes = dict.fromkeys(AFTERS, 0)
    came = dict.fromkeys(AFTERS, 0)
    held: list[int] = []
    for moment, (step, key, after) in enumerate(steps):
        if step == "open":
            clients.opened(ClientKey(key), moment)
            held.append(key)
        elif step == "end":
            clients.ended(ClientKey(key), after, moment)
            closes[after] += 1  # type: ignore[index]
            if key in held:
                held.remove(key)
        elif (back := clients.attempted(ClientKey(key), moment)) is not None:
            came[back.after] += 1
        assert clients.shared_connections == sum(held.count(key) > 1 for key in held)
    assert all(came[after] <= closes[after] for after in AFTERS)


def test_a_client_takes_at_most_300_bytes() -> None:
    """Measured with what Python allocates for 50,000 clients that left a token."""
    clients = known(1_000_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for key in range(50_000):
            client = ClientKey(key << 30 | 1 << 50)
            clients.opened(client, float(key))
            clients.ended(client, "going_away", key + 0.5)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(clients) == 50_000
    assert (after - before) / 50_000 <= 300
