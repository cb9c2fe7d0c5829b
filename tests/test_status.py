"""What the status page is made of: what is remembered, how much of it, and what is read of the recorder."""

from dataclasses import FrozenInstanceError, replace
from typing import Final

import pytest

from exporter.closecodes import Vocabulary
from exporter.events import (
    Bracket,
    BuildReturns,
    Closed,
    HandshakeEnded,
    MassCloseEnded,
    Origin,
    Peer,
    PingAnswered,
)
from exporter.insight.advice import CloseCount
from exporter.insight.advice.advise import NOTHING_SEEN
from exporter.metrics.recorder import Recorder
from exporter.status import BUILDS, CLOSES, LONGEST_BUILD, LONGEST_TEXT, MASS_CLOSES, StatusBook, moment
from tests.support.status_samples import CHAT, FEED, HERD, LAMBDA, NOW, PROBE, STANDINGS, Clock, night

CLOSED: Final = Closed(CHAT, "1000", "normal", "client", 1.0, 1000)


def book() -> tuple[StatusBook, Recorder, Clock]:
    clock = Clock()
    return StatusBook(clock), Recorder(clock), clock


def test_the_newest_closes_come_first_and_the_oldest_are_forgotten() -> None:
    """The last 50, each with the wall-clock time at which it came."""
    kept, recorder, clock = book()
    for number in range(CLOSES + 3):
        clock.now = NOW + number
        kept.emit(replace(CLOSED, reason=str(number)))
    closes = kept.snapshot(recorder).closes
    assert [(one.at, one.closed.reason) for one in closes] == [
        (NOW + number, str(number)) for number in reversed(range(3, CLOSES + 3))
    ]


def test_the_newest_mass_closes_come_first_and_the_oldest_are_forgotten() -> None:
    """The last 20, each with when it began: its event comes when it is over."""
    kept, recorder, clock = book()
    for number in range(MASS_CLOSES + 2):
        clock.now = NOW + number
        kept.emit(MassCloseEnded(replace(HERD, lost=number, lasted=41.0)))
    mass_closes = kept.snapshot(recorder).mass_closes
    assert [one.mass_close.lost for one in mass_closes] == list(reversed(range(2, MASS_CLOSES + 2)))
    assert (mass_closes[0].began, mass_closes[0].ended) == (clock.now - 41.0, clock.now)


def test_other_events_are_not_kept() -> None:
    """Only closes and judged mass closes are."""
    kept, recorder, _ = book()
    kept.emit(HandshakeEnded(CHAT, "accepted", "101"))
    kept.emit(PingAnswered(CHAT, "client", 0.1))
    status = kept.snapshot(recorder)
    assert (status.closes, status.mass_closes) == ((), ())


def test_texts_of_peers_are_cut() -> None:
    """However long a reason, a path or a user agent is, 50 of them stay small; what fits is kept as it came."""
    kept, recorder, _ = book()
    long = "x" * (LONGEST_TEXT + 1)
    kept.emit(replace(CLOSED, reason=long, peer=Peer(long, long, long, long, long)))
    fits = replace(CLOSED, reason="y" * LONGEST_TEXT, peer=Peer(path="\ud800"))
    kept.emit(fits)
    newest, oldest = kept.snapshot(recorder).closes
    assert newest.closed is fits
    cut = "x" * (LONGEST_TEXT - 3) + "..."
    assert (oldest.closed.reason, oldest.closed.peer) == (cut, Peer(cut, cut, cut, cut, cut))
    assert oldest.closed == replace(CLOSED, reason=cut, peer=Peer(cut, cut, cut, cut, cut))


def test_builds_of_mass_closes_are_few_and_cut() -> None:
    """Those that lost most are kept: a peer chooses its name, and how many it has."""
    kept, recorder, _ = book()
    builds = [BuildReturns("x" * 100 + str(lost), lost, 0, 0, 0, None, "too_few") for lost in range(BUILDS + 5)]
    kept.emit(MassCloseEnded(replace(HERD, builds=builds)))
    (one,) = kept.snapshot(recorder).mass_closes
    assert [build.lost for build in one.mass_close.builds] == list(reversed(range(5, BUILDS + 5)))
    assert {build.build for build in one.mass_close.builds} == {"x" * (LONGEST_BUILD - 3) + "..."}


def test_a_snapshot_is_one_moment() -> None:
    """What happens afterwards does not change it, and it cannot be changed."""
    recorder, kept = night()
    status = kept.snapshot(recorder)
    before = repr(status), [list(way.plain.slots) for target in status.targets for way in target.directions]
    kept.emit(CLOSED)
    recorder.emit(CLOSED)
    recorder.watch(CHAT, Vocabulary(frozenset(), frozenset())).client_to_server.plain.add(1)
    after = repr(status), [list(way.plain.slots) for target in status.targets for way in target.directions]
    assert before == after
    with pytest.raises(FrozenInstanceError):
        status.at = 0.0  # type: ignore[misc]


def test_what_is_read_of_the_recorder() -> None:
    """Every source and target: what is open, its closes, sizes, limits, repeats, brackets, and what its probe says."""
    recorder, kept = night()
    status = kept.snapshot(recorder)
    assert status.at == NOW
    assert [target.facts.origin for target in status.targets] == [CHAT, FEED, PROBE, LAMBDA]
    chat, feed, probe, reported = status.targets
    facts = chat.facts
    assert facts.since == "9 May, 09:24 UTC"
    assert (facts.active, facts.closed) == (1358, 14_642)
    assert facts.closes[0] == CloseCount("1001", "going_away", "client", 9413)
    assert sorted((close.count for close in facts.closes), reverse=True) == [close.count for close in facts.closes]
    assert all(close.count for close in facts.closes)
    assert facts.limits == {"client_to_server": 1 << 20}
    assert facts.near == {"client_to_server": 37}
    assert facts.repeats == {"close_1009": 30, "suspected": 0}
    assert facts.standing is STANDINGS[CHAT]
    assert facts.probe_up is None
    ways = [(way.direction, way.limit, way.bracket) for way in chat.directions]
    assert ways == [
        ("client_to_server", 1 << 20, Bracket(1_048_576, 1_100_210)),
        ("server_to_client", None, Bracket(900_000)),
    ]
    assert [way.plain.cumulative(())[1] for way in chat.directions] == [4177, 4140]
    assert [way.compressed.cumulative(())[1] for way in chat.directions] == [0, 240]
    assert feed.facts.near == {"server_to_client": 300}
    assert (probe.facts.probe_up, probe.facts.probe_failures, probe.facts.active) == (True, {"http_5xx": 1}, 1)
    assert (probe.directions, probe.facts.standing) == ((), None)
    assert (reported.facts.active, reported.directions) == (None, ())


def test_advice_comes_with_it() -> None:
    """The snapshot's advice is that of its targets and mass closes, in the words of the operator's clock."""
    recorder, kept = night()
    says = [advice.says for advice in kept.snapshot(recorder).advice]
    assert says[0].startswith("14:02 UTC, chat: 3,120 connections lost (3,097 to 1001 by the server")
    assert says[1].startswith("chat, client to server: 37 messages refused with 1009")
    assert len(says) == 6
    kept, recorder, _ = book()
    assert kept.snapshot(recorder).advice == (NOTHING_SEEN,)


def test_a_target_without_insight() -> None:
    """Where nothing stands yet, nothing is claimed."""
    kept, recorder, _ = book()
    recorder.watch(Origin("tap", "new"), Vocabulary(frozenset(), frozenset()))
    (target,) = kept.snapshot(recorder).targets
    assert (target.facts.standing, target.facts.active, target.facts.closes) == (None, 0, ())
    assert [way.bracket for way in target.directions] == [Bracket(), Bracket()]


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (0.0, "14:07 UTC"),
        (50_850.0, "00:00 UTC"),
        (50_852.0, "11 May, 23:59 UTC"),
        (140 * 86_400.0, "23 Dec 2025, 14:07 UTC"),
    ],
)
def test_moments_in_words(ago: float, text: str) -> None:
    """A day is named unless it is today, a year unless it is this one."""
    assert moment(NOW - ago, NOW) == text
