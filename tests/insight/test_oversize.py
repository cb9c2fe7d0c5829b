"""Refused messages: which one, on what evidence, of whom; each rule and its boundary."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import (
    DIRECTIONS,
    Bracket,
    ClientKey,
    Direction,
    Ending,
    Event,
    Evidence,
    Initiator,
    MessageRefused,
    Origin,
    Passing,
    Refusals,
)
from exporter.insight.oversize import AT_ONCE, Oversize, OversizeRules

CHAT = Origin("tap", "chat")
TO_SERVER, TO_CLIENT = DIRECTIONS
ALICE, BOB = ClientKey(1), ClientKey(2)
KIB = 1024
DAY = 86_400.0
LARGEST: Final = 64 * KIB
"""The largest accepted message, where one is known."""


class Seen:
    """An `Oversize` with a clock that is set, and what it emitted.

    Half a thousand messages were accepted in each direction; the largest of them, if any is known, was LARGEST.
    """

    def __init__(self, *, largest: int = LARGEST, rules: OversizeRules = OversizeRules()) -> None:
        self.emitted: list[Event] = []
        self.oversize = Oversize(CHAT, self.emitted.append, 1000, rules)
        self.now = 1000.0
        self.messages: dict[Direction, int] = dict.fromkeys(DIRECTIONS, 500)
        for direction in DIRECTIONS if largest else ():
            self.oversize.accepted(direction, largest, self.now)

    def ended(
        self,
        passing: Passing | None,
        code: str = "1006",
        initiator: Initiator = "server",
        *,
        client: ClientKey | None = ALICE,
        shared: bool = False,
        mass_close: bool = False,
        close_class: str = "any",
    ) -> None:
        ending = Ending(CHAT, code, close_class, initiator, passing, client)
        before = len(self.emitted), len(self.oversize._held)
        self.oversize.ended(ending, self.now, shared=shared, mass_close=mass_close, messages=self.messages.__getitem__)
        assert self.oversize.concerned(ending) or before == (len(self.emitted), len(self.oversize._held))

    def refused(self, size: int = 0, *, client: ClientKey | None = ALICE, shared: bool = False) -> None:
        """The server refuses a message of this size with a 1009."""
        self.ended(Passing(size), "1009", client=client, shared=shared)

    def wait(self, seconds: float) -> None:
        """Seconds pass without a tick."""
        self.now += seconds

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.oversize.tick(self.now)

    @property
    def refusals(self) -> list[MessageRefused]:
        return [event for event in self.emitted if isinstance(event, MessageRefused)]

    @property
    def last(self) -> MessageRefused:
        return self.refusals[-1]

    def suspected(self) -> list[int]:
        """The suspected sizes, after everything held was settled."""
        self.tick(10.5)
        return [refusal.size for refusal in self.refusals if refusal.evidence == "suspected"]


def refusal(direction: Direction, evidence: Evidence, size: int, **details: bool) -> MessageRefused:
    return MessageRefused(CHAT, direction, evidence, size, **details)


@pytest.mark.parametrize(
    ("code", "passing", "concerned"),
    [
        ("1009", None, True),
        ("1009", Passing(), True),
        ("1006", None, True),
        ("1000", None, False),
        ("1000", Passing(), False),
        ("1000", Passing(4095, 4095, 100_000), False),
        ("1000", Passing(unfinished=4096), True),
        ("1000", Passing(last_second=4096), True),
    ],
)
def test_what_it_is_concerned_of(code: str, passing: Passing | None, concerned: bool) -> None:
    """A 1009, a loss without a Close frame, or a message large enough to be suspected: anything else is in vain."""
    assert Seen().oversize.concerned(Ending(CHAT, code, "any", "server", passing)) == concerned


class TestCertain:
    @pytest.mark.parametrize(("initiator", "direction"), [("server", TO_SERVER), ("client", TO_CLIENT)])
    def test_the_direction(self, initiator: Initiator, direction: Direction) -> None:
        """It is the limit of the side that sent the 1009: the message was on its way to that side."""
        seen = Seen()
        seen.ended(Passing(100_000), "1009", initiator)
        assert seen.emitted == [refusal(direction, "close_1009", 100_000)]

    @pytest.mark.parametrize("initiator", ["exporter", "unknown"])
    def test_of_neither_side(self, initiator: Initiator) -> None:
        """Where neither client nor server ended the connection, no message was refused."""
        seen = Seen()
        seen.ended(None, "1009", initiator)
        seen.ended(Passing(100_000, 100_000, 100_000), "1009", initiator)
        assert seen.emitted == []
        assert seen.oversize.refusals(seen.now) == ()

    @pytest.mark.parametrize(
        ("passing", "size"),
        [
            (Passing(unfinished=5000), 5000),
            (Passing(recent=5000), 5000),
            (Passing(unfinished=5000, last_second=200, recent=300), 5000),
            (Passing(unfinished=200, last_second=300, recent=5000), 5000),
            (Passing(unfinished=4096), 4096),
        ],
    )
    def test_the_refused_one_is_the_largest_that_passes(self, passing: Passing, size: int) -> None:
        """A smaller one, although it is unfinished, cannot be over a limit that admitted a larger one."""
        seen = Seen(largest=0)
        seen.ended(passing, "1009")
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", size)]
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(rejected=size)

    @pytest.mark.parametrize(
        ("passing", "size"),
        [
            (Passing(unfinished=200, recent=5000, compressed=True), 200),
            (Passing(recent=5000, compressed=True), 5000),
            (Passing(compressed=True), 0),
        ],
    )
    def test_compressed(self, passing: Passing, size: int) -> None:
        """Compressed sizes cannot be compared, so the unfinished one it is; and it says nothing of the limit."""
        seen = Seen()
        seen.ended(passing, "1009")
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", size, compressed=True)]
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST)
        assert seen.oversize.refusals(seen.now) == (Refusals(TO_SERVER, "close_1009", 1, 0, 0, 0, 0.0),)

    @pytest.mark.parametrize(
        ("passing", "size"),
        [
            (Passing(recent=5000, largest=5001), 0),
            (Passing(unfinished=5000, largest=5001), 0),
            (Passing(recent=5000, largest=5000), 5000),
            (Passing(unfinished=6000, recent=30, largest=5000), 6000),
        ],
    )
    def test_smaller_than_an_earlier_one(self, passing: Passing, size: int) -> None:
        """A busy receiver may refuse the earlier one late: a heartbeat behind it is not over any limit."""
        seen = Seen(largest=0)
        seen.ended(passing, "1009")
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", size)]
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(rejected=size or None)

    @pytest.mark.parametrize("passing", [None, Passing()])
    def test_unknown_size(self, passing: Passing | None) -> None:
        """Size 0 is told where none is known: such a refusal counts, also as a repeat, but says nothing of a size."""
        seen = Seen()
        for _ in range(3):
            seen.ended(passing, "1009")
        first, again = refusal(TO_SERVER, "close_1009", 0), refusal(TO_SERVER, "close_1009", 0, repeated=True)
        assert seen.emitted == [first, again, again]
        assert seen.oversize.stuck_clients(seen.now) == 1
        assert seen.oversize.refusals(seen.now) == (Refusals(TO_SERVER, "close_1009", 3, 0, 0, 0, 0.0),)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST)

    def test_within_a_mass_close(self) -> None:
        """A 1009 is a 1009, whatever else happens, and at once."""
        seen = Seen()
        seen.ended(Passing(100_000), "1009", mass_close=True)
        seen.oversize.mass_close(seen.now)
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", 100_000)]


class TestReported:
    def test_with_a_size(self) -> None:
        """A 1009 that a service reports is as good as one on the wire, the size included."""
        seen = Seen()
        seen.oversize.reported(TO_CLIENT, 100_000, ALICE, seen.now, shared=False)
        seen.oversize.reported(TO_CLIENT, 100_001, ALICE, seen.now, shared=False)
        assert seen.emitted == [
            refusal(TO_CLIENT, "close_1009", 100_000),
            refusal(TO_CLIENT, "close_1009", 100_001, repeated=True),
        ]
        assert seen.oversize.brackets()[TO_CLIENT] == Bracket(LARGEST, 100_000)

    def test_without_a_size(self) -> None:
        """A service need not say it."""
        seen = Seen()
        seen.oversize.reported(TO_SERVER, None, ALICE, seen.now, shared=False)
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", 0)]
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST)

    def test_a_shared_key(self) -> None:
        """Whose refusals these are cannot be told."""
        seen = Seen()
        for _ in range(3):
            seen.oversize.reported(TO_SERVER, 100_000, ALICE, seen.now, shared=True)
        assert [event.repeated for event in seen.refusals] == [False] * 3
        assert seen.oversize.stuck_clients(seen.now) == 0


class TestSuspected:
    @pytest.mark.parametrize("code", ["1006", "1000", "1005", "1011", "4xxx"])
    @pytest.mark.parametrize("passing", [Passing(unfinished=100_000), Passing(last_second=100_000, recent=100_000)])
    def test_any_other_end(self, code: str, passing: Passing) -> None:
        """By whatever code: the message was unfinished, or completed within the last second."""
        seen = Seen()
        seen.ended(passing, code)
        assert seen.suspected() == [100_000]
        assert seen.last == refusal(TO_SERVER, "suspected", 100_000)

    def test_by_the_client(self) -> None:
        """A client may be the receiver whose limit it is."""
        seen = Seen()
        seen.ended(Passing(100_000), initiator="client")
        assert seen.suspected() == [100_000]
        assert seen.last.direction == TO_CLIENT

    @pytest.mark.parametrize("initiator", ["exporter", "unknown"])
    def test_not_by_anybody_else(self, initiator: Initiator) -> None:
        """Only the receiver can refuse."""
        seen = Seen()
        seen.ended(Passing(100_000), initiator=initiator)
        assert seen.suspected() == []

    def test_the_larger_one_is_suspected(self) -> None:
        """Of an unfinished message and one that has just passed, the refused one is the larger."""
        seen = Seen()
        seen.ended(Passing(unfinished=70_000, last_second=80_000, recent=90_000))
        assert seen.suspected() == [80_000]

    @pytest.mark.parametrize(
        "passing",
        [
            Passing(recent=100_000),
            Passing(100_000, 100_000, 100_000, compressed=True),
            Passing(),
            None,
        ],
    )
    def test_nothing_to_suspect(self, passing: Passing | None) -> None:
        """A message completed over a second ago, a compressed one, or none."""
        seen = Seen()
        seen.ended(passing)
        assert seen.suspected() == []

    @pytest.mark.parametrize(("size", "suspected"), [(4095, []), (4096, [4096])])
    def test_at_least_4_kib(self, size: int, suspected: list[int]) -> None:
        """Smaller messages are no limit's business."""
        seen = Seen(largest=100)
        seen.ended(Passing(size))
        assert seen.suspected() == suspected

    @pytest.mark.parametrize(("size", "suspected"), [(LARGEST, []), (LARGEST + 1, [LARGEST + 1])])
    def test_larger_than_the_largest_accepted(self, size: int, suspected: list[int]) -> None:
        """A size that was accepted is not refused for its size."""
        seen = Seen()
        seen.ended(Passing(size))
        assert seen.suspected() == suspected

    def test_the_largest_accepted_must_be_known(self) -> None:
        """Without any accepted size, or with one of more than a day ago, nothing is large."""
        seen = Seen(largest=0)
        seen.ended(Passing(100_000))
        assert seen.suspected() == []
        seen = Seen()
        seen.tick(DAY + 1)
        seen.ended(Passing(100_000))
        assert seen.suspected() == []

    def test_each_direction_has_its_own_largest(self) -> None:
        """What clients accept says nothing of what the server does."""
        seen = Seen(largest=0)
        seen.oversize.accepted(TO_CLIENT, LARGEST, seen.now)
        seen.ended(Passing(100_000), initiator="server")
        seen.ended(Passing(100_000), initiator="client")
        assert seen.suspected() == [100_000]
        assert seen.last.direction == TO_CLIENT

    @pytest.mark.parametrize(("messages", "suspected"), [(99, []), (100, [100_000])])
    def test_after_100_messages(self, messages: int, suspected: list[int]) -> None:
        """In that direction: before, nobody knows what is usual."""
        seen = Seen()
        seen.messages = {TO_SERVER: messages, TO_CLIENT: 500 - messages}
        seen.ended(Passing(100_000))
        assert seen.suspected() == suspected

    def test_nobody_counts_messages_for_nothing(self) -> None:
        """They are asked for only when everything else fits: an ending is cheap."""
        seen = Seen()
        seen.messages = {}
        seen.ended(Passing(LARGEST))
        seen.ended(Passing(100_000), mass_close=True)
        seen.ended(Passing(100_000), "1009")
        assert len(seen.emitted) == 1

    def test_held_for_10_seconds(self) -> None:
        """Exactly 10 s are not enough: so long a mass close may take to be recognised."""
        seen = Seen()
        seen.ended(Passing(100_000))
        seen.tick(10.0)
        assert seen.emitted == []
        seen.tick(0.5)
        assert seen.emitted == [refusal(TO_SERVER, "suspected", 100_000)]
        seen.tick(20.0)
        assert len(seen.emitted) == 1

    def test_each_is_held_for_itself(self) -> None:
        """A later suspicion waits longer."""
        seen = Seen()
        seen.ended(Passing(100_000))
        seen.wait(5.0)
        seen.ended(Passing(200_000))
        seen.tick(5.5)
        assert [event.size for event in seen.refusals] == [100_000]
        assert seen.suspected() == [100_000, 200_000]

    def test_not_while_a_mass_close_is_open(self) -> None:
        """The service crashed, or restarts."""
        seen = Seen()
        seen.ended(Passing(100_000), mass_close=True)
        assert seen.suspected() == []

    @pytest.mark.parametrize(("after", "suspected"), [(-1.0, []), (0.0, []), (0.5, [100_000])])
    def test_a_mass_close_that_began_about_then(self, after: float, suspected: list[int]) -> None:
        """One whose first close came before it, or was this very one, explains it; one that began after does not."""
        seen = Seen()
        seen.ended(Passing(100_000))
        seen.wait(9.0)
        seen.oversize.mass_close(seen.now - 9.0 + after)
        assert seen.suspected() == suspected

    def test_a_mass_close_recognised_in_the_last_moment(self) -> None:
        """10 s after its first close, although the clock ticked just before."""
        seen = Seen()
        seen.ended(Passing(100_000))
        seen.tick(10.0)
        seen.oversize.mass_close(seen.now - 10.0)
        assert seen.suspected() == []

    @pytest.mark.parametrize("initiator", ["client", "server"])
    @pytest.mark.parametrize("code", ["1001", "4xxx"])
    def test_who_goes_away_refuses_nothing(self, code: str, initiator: Initiator) -> None:
        """A tab is closed while an answer streams to it, or a server shuts down: whatever the code of that is."""
        seen = Seen()
        seen.ended(Passing(100_000), code, initiator, close_class="going_away")
        assert seen.suspected() == []

    def test_a_crash_with_few_connections(self) -> None:
        """No mass close, and three uploads under way, each the largest ever: the server refused none of them."""
        seen = Seen()
        for number, client in enumerate((ALICE, BOB, ClientKey(3))):
            seen.ended(Passing(100_000 + number), client=client)
        assert seen.suspected() == []

    @pytest.mark.parametrize("first", ["suspicion", "loss"])
    @pytest.mark.parametrize(("after", "suspected"), [(0.0, []), (10.0, []), (10.5, [100_000])])
    def test_another_loss_within_the_hold(self, first: str, after: float, suspected: list[int]) -> None:
        """Of nothing large, before or after it, up to exactly 10 s: it explains the suspicion, whatever its code."""
        seen = Seen()
        for what in (first, "loss" if first == "suspicion" else "suspicion"):
            if what == "loss":
                seen.ended(None, client=BOB)
            else:
                seen.ended(Passing(100_000), "1000")
            seen.wait(after if what == first else 0.0)
        assert seen.suspected() == suspected

    @pytest.mark.parametrize(
        ("code", "initiator"), [("1000", "server"), ("1001", "server"), ("1006", "client"), ("1006", "unknown")]
    )
    def test_another_end_is_no_loss(self, code: str, initiator: Initiator) -> None:
        """With a Close frame, by the other side, or by nobody knows whom: the receiver has not dropped TCP there."""
        seen = Seen()
        seen.ended(None, code, initiator, client=BOB)
        seen.ended(Passing(100_000))
        seen.ended(None, code, initiator, client=BOB)
        assert seen.suspected() == [100_000]

    def test_the_losses_of_one_client_are_its_loop(self) -> None:
        """It is refused again and again within seconds: that explains nothing, another's loss before does."""
        seen = Seen()
        seen.ended(None, client=BOB)
        for _ in range(3):
            seen.ended(Passing(100_000))
        assert seen.suspected() == []
        for _ in range(3):
            seen.ended(Passing(100_000))
            seen.tick(2.0)
        assert seen.suspected() == [100_000] * 3
        assert [event.repeated for event in seen.refusals] == [False, True, True]

    @pytest.mark.parametrize(("client", "shared"), [(None, False), (ALICE, True)])
    def test_losses_of_who_is_not_recognised(self, client: ClientKey | None, shared: bool) -> None:
        """One alone is suspected; two may well be of two clients."""
        seen = Seen()
        seen.ended(Passing(100_000), client=client, shared=shared)
        assert seen.suspected() == [100_000]
        for _ in range(2):
            seen.ended(Passing(100_000), client=client, shared=shared)
        assert seen.suspected() == [100_000]

    def test_accepted_meanwhile(self) -> None:
        """A message as large that had just passed elsewhere counts as accepted only 5 s later: no limit then."""
        seen = Seen()
        for size in (100_000, 100_001):
            seen.ended(Passing(size))
        seen.wait(4.0)
        seen.oversize.accepted(TO_SERVER, 100_000, seen.now)
        assert seen.suspected() == [100_001]

    def test_a_crowd_of_suspicions_is_bounded(self) -> None:
        """Not more than so many are held at once; later ones are taken again."""
        seen = Seen(rules=OversizeRules(most_held=3))
        for size in range(100_000, 100_010):
            seen.ended(Passing(size))
        assert seen.suspected() == [100_000, 100_001, 100_002]
        seen.ended(Passing(200_000))
        assert seen.suspected()[3:] == [200_000]

    def test_a_crowd_is_settled_bit_by_bit(self) -> None:
        """No tick may take long, so that it settles only so many."""
        seen = Seen()
        for _ in range(AT_ONCE + 1):
            seen.ended(Passing(100_000))
        assert len(seen.suspected()) == AT_ONCE
        seen.tick()
        assert len(seen.refusals) == AT_ONCE + 1

    def test_a_suspicion_says_nothing_of_the_limit(self) -> None:
        """The bracket rests on 1009 alone."""
        seen = Seen()
        seen.ended(Passing(100_000))
        assert seen.suspected() == [100_000]
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST)


class TestRepeats:
    def test_within_five_minutes_of_the_last(self) -> None:
        """Exactly 300 s included."""
        seen = Seen()
        for pause in (0.0, 300.0, 300.5, 1.0):
            seen.tick(pause)
            seen.refused()
        assert [event.repeated for event in seen.refusals] == [False, True, False, True]

    def test_of_the_same_client(self) -> None:
        """Another one's refusals are its own."""
        seen = Seen()
        for client in (ALICE, BOB, BOB):
            seen.refused(client=client)
        assert [event.repeated for event in seen.refusals] == [False, False, True]

    @pytest.mark.parametrize(("client", "shared"), [(None, False), (ALICE, True)])
    def test_of_nobody(self, client: ClientKey | None, shared: bool) -> None:
        """A client that is not recognised, or whose key several connections hold, neither repeats nor is stuck."""
        seen = Seen()
        for _ in range(4):
            seen.refused(100_000, client=client, shared=shared)
            seen.ended(Passing(200_000), "1000", client=client, shared=shared)
        assert len(seen.suspected()) == 4
        assert [event.repeated for event in seen.refusals] == [False] * 8
        assert seen.oversize.stuck_clients(seen.now) == 0

    def test_a_shared_refusal_is_no_first_one(self) -> None:
        """When the key is held by one again, its first own refusal is no repeat."""
        seen = Seen()
        seen.refused(shared=True)
        seen.refused()
        seen.refused()
        assert [event.repeated for event in seen.refusals] == [False, False, True]

    def test_suspected_ones_by_the_time_of_the_close(self) -> None:
        """Not of the settlement: closes exactly 300 s apart are a repeat, however late the clock ticks."""
        seen = Seen()
        seen.ended(Passing(100_000))
        seen.tick(20.0)
        seen.wait(280.0)
        seen.ended(Passing(100_000))
        seen.tick(60.0)
        assert [event.repeated for event in seen.refusals] == [False, True]

    def test_evidences_are_not_added(self) -> None:
        """A suspected refusal after a certain one is no repeat; two of each are no three."""
        seen = Seen()
        for _ in range(2):
            seen.refused(200_000)
            seen.ended(Passing(300_000))
        assert seen.suspected() == [300_000, 300_000]
        assert [(event.evidence, event.repeated) for event in seen.refusals] == [
            ("close_1009", False),
            ("close_1009", True),
            ("suspected", False),
            ("suspected", True),
        ]
        assert seen.oversize.stuck_clients(seen.now) == 0

    def test_stuck(self) -> None:
        """With three refusals within 900 s, exactly that included, of a certain or suspected kind."""
        seen = Seen()
        for pause in (0.0, 450.0, 450.0):
            seen.tick(pause)
            assert seen.oversize.stuck_clients(seen.now) == 0
            seen.refused()
        assert seen.oversize.stuck_clients(seen.now) == 1
        assert seen.oversize.stuck_clients(seen.now + 1) == 0
        for _ in range(3):
            seen.ended(Passing(100_000), client=BOB)
        assert seen.suspected() == [100_000] * 3
        assert seen.oversize.stuck_clients(seen.now) == 1

    def test_other_rules(self) -> None:
        """Every duration and floor can be another, for one."""
        rules = OversizeRules(
            repeat=3.0, stuck=9.0, stuck_refusals=2, hold=1.0, least_size=10, least_messages=1, evidence=24.0
        )
        seen = Seen(largest=9, rules=rules)
        seen.messages = {TO_SERVER: 1}
        seen.ended(Passing(10))
        seen.tick(1.5)
        seen.refused(20)
        seen.tick(3.0)
        seen.refused(20)
        assert [(event.size, event.repeated) for event in seen.refusals] == [(10, False), (20, False), (20, True)]
        assert seen.oversize.stuck_clients(seen.now) == 1
        assert seen.oversize.stuck_clients(seen.now + 7) == 0
        seen.tick(25.0)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket()
        assert seen.oversize.refusals(seen.now) == ()


class TestStanding:
    def test_nothing_yet(self) -> None:
        """Both directions have a bracket, even of nothing; refusals are only what there was."""
        seen = Seen(largest=0)
        assert seen.oversize.brackets() == {TO_SERVER: Bracket(), TO_CLIENT: Bracket()}
        assert seen.oversize.refusals(seen.now) == ()
        assert seen.oversize.stuck_clients(seen.now) == 0

    def test_brackets(self) -> None:
        """Each direction has its own."""
        seen = Seen()
        seen.refused(70_000)
        seen.refused(80_000)
        seen.ended(Passing(90_000), "1009", "client")
        assert seen.oversize.brackets() == {TO_SERVER: Bracket(LARGEST, 70_000), TO_CLIENT: Bracket(LARGEST, 90_000)}

    def test_contradictions(self) -> None:
        """A newer size drops the older bound that it contradicts, and for a day it is told that there was one.

        Of refusals it takes those of two clients.
        """
        seen = Seen()
        for _ in range(3):
            seen.refused(LARGEST)
            assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST, contradicted=True)
        seen.refused(LARGEST, client=BOB)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(rejected=LARGEST, contradicted=True)
        seen.oversize.accepted(TO_SERVER, LARGEST, seen.now)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST, contradicted=True)
        assert seen.oversize.brackets()[TO_CLIENT] == Bracket(accepted=LARGEST)

    @pytest.mark.parametrize(("client", "shared"), [(None, False), (ALICE, True)])
    def test_two_who_are_not_recognised_contradict(self, client: ClientKey | None, shared: bool) -> None:
        """They were two connections, and more than that nobody knows."""
        seen = Seen()
        for expected in (LARGEST, None):
            seen.refused(5000, client=client, shared=shared)
            assert seen.oversize.brackets()[TO_SERVER].accepted == expected

    @pytest.mark.parametrize("size", [1, 20, 4095])
    def test_tiny_sizes_say_nothing(self, size: int) -> None:
        """A peer may say 1009 to anything: it counts, and its size is told, but no bracket and no advice rest on it."""
        seen = Seen()
        for client in (ALICE, BOB, None):
            seen.refused(size, client=client)
        assert seen.emitted == [refusal(TO_SERVER, "close_1009", size)] * 3
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(accepted=LARGEST)
        assert seen.oversize.refusals(seen.now) == (Refusals(TO_SERVER, "close_1009", 3, 0, 0, 0, 0.0),)

    def test_from_4_kib_on_sizes_tell(self) -> None:
        """4,096 bytes may be over a limit."""
        seen = Seen(largest=0)
        seen.refused(4096)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(rejected=4096)
        assert seen.oversize.refusals(seen.now) == (Refusals(TO_SERVER, "close_1009", 1, 1, 4096, 4096, 0.0),)

    def test_evidence_ages_out(self) -> None:
        """After exactly 24 hours it still counts, and no more after that."""
        seen = Seen()
        seen.refused(70_000)
        seen.tick(DAY)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket(LARGEST, 70_000)
        assert seen.oversize.refusals(seen.now) == (Refusals(TO_SERVER, "close_1009", 1, 1, 70_000, 70_000, DAY),)
        assert seen.oversize.refusals(seen.now + 0.5) == ()
        seen.tick(0.5)
        assert seen.oversize.brackets()[TO_SERVER] == Bracket()

    def test_refusals(self) -> None:
        """By direction and evidence, never added together; the time since the last is that since its close."""
        seen = Seen()
        for size in (80_000, 0, 70_000):
            seen.refused(size)
        seen.ended(Passing(90_000, compressed=True), "1009", "client")
        seen.ended(Passing(95_000), initiator="client")
        seen.wait(5.0)
        assert {(found.direction, found.evidence) for found in seen.oversize.refusals(seen.now)} == {
            (TO_SERVER, "close_1009"),
            (TO_CLIENT, "close_1009"),
        }
        seen.tick(7.0)
        assert seen.oversize.refusals(seen.now) == (
            Refusals(TO_SERVER, "close_1009", 3, 2, 70_000, 80_000, 12.0),
            Refusals(TO_CLIENT, "close_1009", 1, 0, 0, 0, 12.0),
            Refusals(TO_CLIENT, "suspected", 1, 1, 95_000, 95_000, 12.0),
        )


acts = st.lists(
    st.one_of(
        st.tuples(st.just("refused"), st.sampled_from([None, 1, 2, 3]), st.booleans()),
        st.tuples(st.just("suspected"), st.sampled_from([None, 1, 2, 3]), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 100, 300, 301, 450, 900, 901]), st.none()),
    ),
    max_size=50,
)
"""A certain or suspected refusal of a client, whose key may be shared, or seconds that pass."""


@given(acts)
def test_any_history(history: list[tuple[str, int | None, bool | None]]) -> None:
    """Repeats, stuck clients and counts are those of a complete list of what happened."""
    seen = Seen(largest=100)
    times: dict[tuple[str, int], list[float]] = {}
    counts = SimpleNamespace(refused=0, suspected=0)
    for what, value, shared in history:
        if what == "wait":
            seen.tick(float(value or 0))
            continue
        ending = Passing(5000)
        client = None if value is None else ClientKey(value)
        seen.ended(ending, "1009" if what == "refused" else "1000", client=client, shared=bool(shared))
        setattr(counts, what, getattr(counts, what) + 1)
        if value is not None and not shared:
            times.setdefault((what, value), []).append(seen.now)
    seen.tick(11.0)
    repeats = [sum(after - before <= 300 for before, after in pairwise(found)) for found in times.values()]
    stuck = {client for (_, client), found in times.items() if sum(seen.now - time <= 900 for time in found) >= 3}
    assert sum(event.repeated for event in seen.refusals) == sum(repeats)
    assert seen.oversize.stuck_clients(seen.now) == len(stuck)
    assert {found.evidence: found.count for found in seen.oversize.refusals(seen.now)} == {
        evidence: count
        for evidence, count in (("close_1009", counts.refused), ("suspected", counts.suspected))
        if count
    }
