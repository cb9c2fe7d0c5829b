"""What is advised, word by word: facts in, sentences out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import (
    VERDICTS,
    Bracket,
    BuildReturns,
    Direction,
    MassClose,
    Origin,
    Refusals,
    Standing,
)
from exporter.insight.advice import Advice, CloseCount, Facts, PastMassClose, advise, remedy, told
from exporter.insight.advice.advise import NOTHING_SEEN, NOTHING_WRONG
from exporter.insight.advice.sizes import chunk_under, room_for
from exporter.insight.advice.words import counted, exact_and_rounded, lasting, listed, place, share, size, span

CHAT: Final = Origin("tap", "chat")
MIB: Final = 1 << 20
NONE: Final = Bracket()
KNOWN: Final = Bracket(1_048_576, 1_100_210)
CERTAIN: Final = Refusals("client_to_server", "close_1009", 37, 37, 1_153_434, 1_887_437, 240.0)
SUSPECTED: Final = Refusals("client_to_server", "suspected", 5, 4, 1_153_434, 1_887_437, 7200.0)

COMPARE: Final = (
    "Compare the server's limit with the size before compression: that is what a limit applies to. What was seen is in "
    'the log ("message refused").'
)
FRAGMENTS: Final = "(each a message of its own: fragments of one do not help)."
LOG: Final = (
    "The server's own log may know: on oversize uWebSockets, autobahn and tungstenite drop TCP, granian sends an empty "
    "Close, python-socketio 1000."
)


def standing(*refusals: Refusals, brackets: Mapping[Direction, Bracket] | None = None, **settings: Any) -> Standing:
    quiet = {
        "last_minute": 0,
        "peak_per_second": 0,
        "mass_close_active": False,
        "shared_connections": 0,
        "stuck_clients": 0,
    }
    return Standing(**(quiet | settings), brackets=brackets or {}, refusals=refusals)


def facts(*refusals: Refusals, bracket: Bracket = NONE, limit: int | None = None, **settings: Any) -> Facts:
    """`bracket` and `limit` are those of client to server; other settings are the standing's."""
    about: dict[str, Any] = {
        key: settings.pop(key) for key in ("near", "repeats", "active", "closes", "origin") if key in settings
    }
    now = standing(*refusals, brackets={"client_to_server": bracket}, **settings)
    limits: dict[Direction, int] = {} if limit is None else {"client_to_server": limit}
    return Facts(**({"origin": CHAT, "since": "09:12 UTC"} | about), limits=limits, standing=now)


def said(*origins: Facts, mass_closes: tuple[PastMassClose, ...] = ()) -> list[tuple[str, str, str]]:
    return [(advice.weight, advice.says, advice.do) for advice in advise(origins, mass_closes)]


REFUSED: Final[dict[str, tuple[Facts, str, str, str]]] = {
    "the-issue's-example": (
        facts(CERTAIN, bracket=KNOWN),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1.1 and 1.8 MiB; the server's limit lies between 1,048,576 and 1,100,210 bytes (perhaps 1 MiB).",
        f"Raising it to 2 MiB would have admitted all of them, so would chunks of 256 KiB {FRAGMENTS}",
    ),
    "one": (
        facts(replace(CERTAIN, count=1, sized=1, smallest=1_200_000, largest=1_200_000, last=3600.0)),
        "look",
        "chat, client to server: 1 message refused with 1009 in the last 24 hours (the last one 60 min ago), of "
        "1,200,000 bytes.",
        f"Raising it to 2 MiB would have admitted it, so would smaller chunks {FRAGMENTS}",
    ),
    "just-under-an-hour-ago": (
        facts(replace(CERTAIN, last=3599.0)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 60 min ago), all "
        "between 1.1 and 1.8 MiB.",
        f"Raising it to 2 MiB would have admitted all of them, so would smaller chunks {FRAGMENTS}",
    ),
    "refused-at-the-limit-itself": (
        facts(replace(CERTAIN, count=2, sized=2, smallest=MIB, largest=MIB), bracket=Bracket(MIB - 1, MIB)),
        "act",
        "chat, client to server: 2 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all of "
        "1,048,576 bytes; the server's limit lies between 1,048,575 and 1,048,576 bytes (perhaps 1 MiB).",
        f"Raising it to 2 MiB would have admitted all of them, so would chunks of 128 KiB {FRAGMENTS}",
    ),
    "only-refused": (
        facts(CERTAIN, bracket=Bracket(None, 1_153_434)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1.1 and 1.8 MiB; the server's limit is at most 1,153,434 bytes.",
        f"Raising it to 2 MiB would have admitted all of them, so would smaller chunks {FRAGMENTS}",
    ),
    "only-accepted": (
        facts(replace(CERTAIN, sized=0, smallest=0, largest=0), bracket=Bracket(500_000, None)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), their "
        "sizes tell nothing (compressed, not seen, or under 4 KiB); the server's limit is at least 500,000 bytes.",
        COMPARE,
    ),
    "one-of-unknown-size": (
        facts(replace(CERTAIN, count=1, sized=0, smallest=0, largest=0)),
        "act",
        "chat, client to server: 1 message refused with 1009 in the last 24 hours (the last one 4 min ago), its size "
        "tells nothing (compressed, not seen, or under 4 KiB).",
        COMPARE,
    ),
    "some-of-unknown-size": (
        facts(replace(CERTAIN, sized=32), bracket=Bracket(900, 1_153_434)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), 32 of "
        "them between 1.1 and 1.8 MiB, the sizes of 5 tell nothing (compressed, not seen, or under 4 KiB); the "
        "server's limit lies between 900 and 1,153,434 bytes.",
        f"Raising it to 2 MiB would have admitted those 32, so would smaller chunks {FRAGMENTS}",
    ),
    "one-of-two-of-unknown-size": (
        facts(replace(CERTAIN, count=2, sized=1, smallest=9000, largest=9000)),
        "act",
        "chat, client to server: 2 messages refused with 1009 in the last 24 hours (the last one 4 min ago), 1 of them "
        "of 9,000 bytes, the size of 1 tells nothing (compressed, not seen, or under 4 KiB).",
        f"Raising it to 16 KiB would have admitted that one, so would smaller chunks {FRAGMENTS}",
    ),
    "accepted-too": (
        facts(
            replace(CERTAIN, count=1, sized=1, smallest=500_000, largest=500_000),
            bracket=Bracket(500_000, None, contradicted=True),
        ),
        "act",
        "chat, client to server: 1 message refused with 1009 in the last 24 hours (the last one 4 min ago), of 500,000 "
        "bytes; the server's limit has changed, or is not the same for all connections: sizes were both accepted and "
        "refused; the best guess is that it is at least 500,000 bytes.",
        "Messages as large are accepted: if the limit has not been raised since, look for what these connections have "
        "of their own (a client, an instance or a proxy with a lower limit), or send smaller ones.",
    ),
    "contradicted": (
        facts(CERTAIN, bracket=Bracket(contradicted=True)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1.1 and 1.8 MiB; the server's limit has changed, or is not the same for all connections: sizes were "
        "both accepted and refused.",
        f"Raising it to 2 MiB would have admitted all of them, so would smaller chunks {FRAGMENTS}",
    ),
    "contradicted-and-seen-since": (
        facts(CERTAIN, bracket=replace(KNOWN, contradicted=True)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1.1 and 1.8 MiB; the server's limit has changed, or is not the same for all connections: sizes were "
        "both accepted and refused; the best guess is that it lies between 1,048,576 and 1,100,210 bytes (perhaps 1 "
        "MiB).",
        f"Raising it to 2 MiB would have admitted all of them, so would chunks of 256 KiB {FRAGMENTS}",
    ),
    "to-the-client": (
        facts(replace(CERTAIN, direction="server_to_client", smallest=70_000, largest=70_400)),
        "act",
        "chat, server to client: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 68.4 and 68.8 KiB.",
        f"Raising it to 128 KiB would have admitted all of them, so would smaller chunks {FRAGMENTS}",
    ),
    "too-large-for-one-message": (
        facts(replace(CERTAIN, smallest=1 << 20, largest=1 << 62), bracket=Bracket(800_000, 1 << 20)),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1 MiB and 4 EiB; the server's limit lies between 800,000 and 1,048,576 bytes (perhaps 1 MiB).",
        "Too large to raise a limit for: send chunks of 128 KiB, each a message of its own, or upload over HTTP.",
    ),
    "reported": (
        facts(CERTAIN, origin=Origin("webhook", "chat")),
        "act",
        "chat (webhook), client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min "
        "ago), all between 1.1 and 1.8 MiB.",
        f"Raising it to 2 MiB would have admitted all of them, so would smaller chunks {FRAGMENTS}",
    ),
    "chunks-by-the-configured-limit": (
        facts(CERTAIN, bracket=Bracket(9_000, 1_153_434), limit=MIB),
        "act",
        "chat, client to server: 37 messages refused with 1009 in the last 24 hours (the last one 4 min ago), all "
        "between 1.1 and 1.8 MiB; the server's limit lies between 9,000 and 1,153,434 bytes.",
        f"Raising it to 2 MiB would have admitted all of them, so would chunks of 256 KiB {FRAGMENTS}",
    ),
    "suspected": (
        facts(SUSPECTED, bracket=Bracket(1_048_576, None)),
        "look",
        "chat, client to server: 5 messages probably refused (suspected, no 1009 was sent) in the last 24 hours (the "
        "last one 2 h ago), 4 of them between 1.1 and 1.8 MiB, the size of 1 tells nothing (compressed, not seen, or "
        "under 4 KiB); messages of up to 1,048,576 bytes were accepted.",
        "If it is the server's limit, raising it to 2 MiB would have admitted those 4, so would chunks of 256 KiB "
        f"{FRAGMENTS} {LOG}",
    ),
    "suspected-and-accepted-since": (
        facts(SUSPECTED, bracket=Bracket(SUSPECTED.largest, None)),
        "look",
        "chat, client to server: 5 messages probably refused (suspected, no 1009 was sent) in the last 24 hours (the "
        "last one 2 h ago), 4 of them between 1.1 and 1.8 MiB, the size of 1 tells nothing (compressed, not seen, or "
        "under 4 KiB); messages of up to 1,887,437 bytes were accepted.",
        f"Messages as large are accepted: it was hardly the size. {LOG}",
    ),
    "suspected-of-the-client": (
        facts(Refusals("server_to_client", "suspected", 1, 1, 9_000, 9_000, 60.0)),
        "look",
        "chat, server to client: 1 message probably refused (suspected, no 1009 was sent) in the last 24 hours (the "
        "last one 60 s ago), of 9,000 bytes.",
        f"If it is the client's limit, raising it to 16 KiB would have admitted it, so would smaller chunks "
        f"{FRAGMENTS} The client's own log may know.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_messages(case: str) -> None:
    """How many, how large, whose limit it is and where it lies; what would have let them through."""
    given_facts, *expected = REFUSED[case]
    assert said(given_facts) == [tuple(expected)]


def test_the_two_kinds_of_evidence_are_never_added() -> None:
    """37 certain refusals and 5 suspected ones are two sentences, and no sentence says 42."""
    sentences = said(facts(CERTAIN, SUSPECTED, bracket=KNOWN))
    assert [weight for weight, _, _ in sentences] == ["act", "look"]
    assert ": 37 messages refused with 1009" in sentences[0][1]
    assert ": 5 messages probably refused (suspected, no 1009 was sent)" in sentences[1][1]
    assert "42" not in str(sentences)


LIMITS: Final[dict[str, tuple[Facts, str, str]]] = {
    "refused-under-it": (
        facts(bracket=Bracket(60_000, 65_537), limit=MIB),
        "chat, client to server: a message of 65,537 bytes was refused with 1009, under the configured limit of "
        "1,048,576 bytes (1 MiB).",
        "The limit in force is lower: the server's own, or that of a hop before it. Correct it there, or "
        "targets.chat.limits.client_to_server.",
    ),
    "accepted-over-it": (
        facts(bracket=Bracket(1_048_577, None), limit=MIB),
        "chat, client to server: a message of 1,048,577 bytes was accepted, over the configured limit of "
        "1,048,576 bytes (1 MiB).",
        "targets.chat.limits.client_to_server is not the server's limit: correct it, and what is said of headroom "
        "will be true.",
    ),
    "near": (
        facts(bracket=Bracket(996_148, None), limit=MIB, near={"client_to_server": 1200}),
        "chat, client to server: the largest message accepted in the last 24 hours had 996,148 bytes, 95 % of the "
        "configured limit of 1,048,576 bytes (1 MiB); since 09:12 UTC 1,200 messages were over 80 % of it.",
        "Before one is refused: send chunks of 128 KiB or raise the limit to 2 MiB.",
    ),
    "at-it": (
        facts(bracket=Bracket(MIB, None), limit=MIB, near={"client_to_server": 1}),
        "chat, client to server: the largest message accepted in the last 24 hours had 1,048,576 bytes, 100 % of the "
        "configured limit of 1,048,576 bytes (1 MiB); since 09:12 UTC 1 message was over 80 % of it.",
        "Before one is refused: send chunks of 256 KiB or raise the limit to 2 MiB.",
    ),
    "near-a-huge-one": (
        facts(bracket=Bracket(63 * MIB, None), limit=64 * MIB),
        "chat, client to server: the largest message accepted in the last 24 hours had 66,060,288 bytes, 98 % of the "
        "configured limit of 67,108,864 bytes (64 MiB).",
        "Before one is refused: send chunks of 8 MiB.",
    ),
    "near-a-tiny-one": (
        facts(bracket=Bracket(100, None), limit=125),
        "chat, client to server: the largest message accepted in the last 24 hours had 100 bytes, 80 % of the "
        "configured limit of 125 bytes.",
        "Before one is refused: raise the limit to 128 bytes.",
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_configured_limit_is_held_against_what_is_seen(case: str) -> None:
    """It is said where the configured limit is not the one in force, and where a message is about to meet it."""
    given_facts, says, do = LIMITS[case]
    assert said(given_facts) == [("look", says, do)]


@pytest.mark.parametrize(
    "quiet",
    [
        facts(bracket=Bracket(838_860, None), limit=MIB),
        facts(bracket=Bracket(MIB - 1, MIB), limit=MIB),
        facts(bracket=KNOWN, limit=MIB),
        facts(bracket=Bracket(2 * MIB, None, contradicted=True), limit=MIB),
        facts(bracket=Bracket(2 * MIB, None)),
        facts(limit=MIB),
    ],
    ids=["under-80-percent", "refused-at-it", "agrees", "contradicted", "not-configured", "nothing-seen"],
)
def test_a_limit_that_is_well_says_nothing(quiet: Facts) -> None:
    """Nothing is said under 80 %, where evidence and configuration agree, or where there is no evidence."""
    assert advise([replace(quiet, active=1)], ()) == (NOTHING_WRONG,)


def test_stuck_clients() -> None:
    """Clients in a loop hurt now, and then repeats need no sentence of their own."""
    assert said(facts(CERTAIN, stuck_clients=3, repeats={"close_1009": 30}))[1:] == [
        (
            "act",
            "chat: 3 clients are stuck in a loop, each refused 3 times or more in the last 15 minutes for a message's "
            "size.",
            "They reconnect and send the same message again. Have the client drop or split a message that was "
            "refused; until then only a higher limit lets them through.",
        )
    ]
    assert said(facts(replace(CERTAIN, sized=0), stuck_clients=3))[1][2] == (
        "They reconnect and send the same message again. Have the client drop or split a message that was refused."
    )
    assert said(facts(stuck_clients=1))[0][1] == (
        "chat: 1 client is stuck in a loop, refused 3 times or more in the last 15 minutes for a message's size."
    )


def test_repeats() -> None:
    """A loop of some while ago is told by evidence, as long as its refusals are remembered."""
    told_facts = facts(CERTAIN, SUSPECTED, repeats={"close_1009": 30, "suspected": 1})
    assert said(told_facts)[2][1:] == (
        "chat: since 09:12 UTC 30 messages refused with 1009 and 1 message probably refused (suspected, no 1009 was "
        "sent) came from clients that had been refused within the 5 minutes before; none is stuck now.",
        "They send the refused message again. Have the client drop or split it.",
    )
    assert advise([facts(repeats={"close_1009": 30}, active=1)], ()) == (NOTHING_WRONG,)
    assert len(advise([facts(CERTAIN, repeats={"close_1009": 0, "suspected": 4})], ())) == 1


BACKING_OFF: Final = (
    "wait a random 0-5 s (more for a large fleet) before the first attempt, then back off exponentially with full "
    "jitter and a cap, and reset that only after 30 s of a stable connection"
)
HERD: Final = MassClose(
    CHAT,
    "herd",
    lasted=41.0,
    lost=3120,
    lost_by={("1001", "server"): 3120},
    back=3066,
    tried=3118,
    returned={"1s": 0, "5s": 2890, "30s": 170, "120s": 6, "later": 0},
    busiest_second=1871,
    answered=3610,
    rejected=412,
    gap=2.1,
    draining=False,
    builds=(
        BuildReturns("Chrome/147", 401, 398, 401, 0, 3.1, "jittered"),
        BuildReturns("okhttp/4", 160, 152, 160, 1, 15.0, "fixed_interval"),
        BuildReturns("acme-app/3", 2544, 2512, 2540, 2390, 0.4, "immediate"),
    ),
)
BACK: Final = "14:02 UTC, chat: 3,120 connections lost to 1001 by the server, service back after 2.1 s, "

MASS_CLOSES: Final[dict[str, tuple[MassClose, str, str, str]]] = {
    "herd": (
        HERD,
        "act",
        BACK + "61 % of the 3,066 returns in one second: herd; do not back off: acme-app/3 (94 % tried within 1 s); "
        "back off without jitter: okhttp/4 (after 15 s).",
        f"In the client, {BACKING_OFF}. On the server, drain in batches instead of closing everyone at once.",
    ),
    "herd-without-builds": (
        replace(HERD, builds=()),
        "act",
        BACK + "61 % of the 3,066 returns in one second: herd.",
        f"In the client, {BACKING_OFF}. On the server, drain in batches instead of closing everyone at once.",
    ),
    "herd-with-jitter": (
        replace(HERD, builds=(replace(HERD.builds[0], median_delay=0.6), replace(HERD.builds[0], rhythm="too_few"))),
        "act",
        BACK + "61 % of the 3,066 returns in one second: herd.",
        "Its clients do wait at random, but not for long enough: spread the first attempt over more time, 30 s or a "
        "minute for a large fleet. On the server, drain in batches instead of closing everyone at once.",
    ),
    "amplified": (
        replace(HERD, verdict="amplified", answered=9201, rejected=3000, builds=HERD.builds[:2]),
        "act",
        BACK + "3.0 handshakes answered for each of 3,066 returns, 33 % of them rejected: amplified; back off without "
        "jitter: okhttp/4 (after 15 s).",
        "Clients try again without waiting, rejected or cut off once more. In the client, "
        f"{BACKING_OFF}; let the service refuse early, with 503, what it cannot keep.",
    ),
    "unrecovered-tried": (
        replace(
            HERD,
            verdict="unrecovered",
            lasted=600.0,
            lost=200,
            lost_by={("1006", "server"): 150, ("1001", "server"): 50},
            back=60,
            tried=190,
            builds=(BuildReturns("acme-app/3", 150, 12, 12, 1, 8.0, "too_few"),),
        ),
        "act",
        "14:02 UTC, chat: 200 connections lost (150 to 1006 by the server and 50 to 1001 by the server), service back "
        "after 2.1 s, only 60 of 200 connected again after 10 min, 10 never tried: unrecovered; most are missing of "
        "acme-app/3 (12 of 150 back).",
        "They tried, and most did not get in or did not stay: see the service's log, and its handshakes by status.",
    ),
    "unrecovered-never-tried": (
        replace(HERD, verdict="unrecovered", lasted=600.0, lost=200, back=60, tried=80, builds=()),
        "act",
        "14:02 UTC, chat: 200 connections lost to 1001 by the server, service back after 2.1 s, only 60 of 200 "
        "connected again after 10 min, 120 never tried: unrecovered.",
        "Most of those missing never tried to come back: give these clients automatic reconnection. "
        f"They should {BACKING_OFF}.",
    ),
    "unrecovered-down": (
        replace(HERD, verdict="unrecovered", lasted=600.0, lost=200, back=0, tried=200, gap=None, builds=()),
        "act",
        "14:02 UTC, chat: 200 connections lost to 1001 by the server, nobody was accepted again, only 0 of 200 "
        "connected again after 10 min: unrecovered.",
        "They tried and nobody got in: the service is down, or rejects them. See its log and its handshakes.",
    ),
    "moved": (
        replace(HERD, verdict="moved", returned={"1s": 12}, back=12),
        "look",
        BACK + "12 clients came back here: moved.",
        "Compare websocket_connections_active over all replicas: where there is another one, they are probably there. "
        "If this is the only one they are gone: see whether the service accepts connections.",
    ),
    "moved-by-our-own-shutdown": (
        replace(HERD, verdict="moved", returned={"1s": 1}, draining=True, lost_by={("1006", "exporter"): 3120}),
        "calm",
        "14:02 UTC, chat: 3,120 connections lost to 1006 by the exporter, while this exporter was shutting down, "
        "service back after 2.1 s, 1 client came back here: moved.",
        "Nothing here: clients were meant to go elsewhere. The other replicas' pages say how they came back.",
    ),
    "too-few": (
        replace(HERD, verdict="too_few", lost=20, lost_by={("1001", "unknown"): 20}, returned={"1s": 19}),
        "calm",
        "14:02 UTC, chat: 20 connections lost to 1001, service back after 2.1 s, 19 clients came back: too few.",
        "Too few came back to judge how they do it. If the close was not planned, ask why the server left.",
    ),
    "healthy": (
        replace(HERD, verdict="healthy", busiest_second=611, back=3119),
        "calm",
        BACK + "over 99 % are back, at most 20 % of the 3,066 returns in one second: healthy.",
        "Nothing to do.",
    ),
    "many-codes": (
        replace(
            HERD,
            lost_by={
                ("1006", "server"): 20,
                ("1001", "server"): 3000,
                ("1011", "server"): 70,
                ("1012", "server"): 30,
                ("1000", "server"): 0,
            },
            builds=(),
        ),
        "act",
        "14:02 UTC, chat: 3,120 connections lost (3,000 to 1001 by the server, 70 to 1011 by the server, 30 to 1012 by "
        "the server and 20 otherwise), service back after 2.1 s, 61 % of the 3,066 returns in one second: herd.",
        f"In the client, {BACKING_OFF}. On the server, drain in batches instead of closing everyone at once.",
    ),
}


@pytest.mark.parametrize("case", MASS_CLOSES)
def test_a_mass_close(case: str) -> None:
    """What was lost, how it came back, the verdict, who was worst, and the remedy."""
    mass_close, *expected = MASS_CLOSES[case]
    sentences = said(facts(active=3000), mass_closes=(PastMassClose("14:02 UTC", 300.0, mass_close),))
    assert sentences[-1] == tuple(expected)
    assert (sentences[0][1] == NOTHING_WRONG.says) == (expected[0] == "calm")


def test_every_verdict_is_told() -> None:
    """No verdict lacks its sentence or its remedy, also where there is nothing to divide by."""
    assert {mass_close.verdict for mass_close, *_ in MASS_CLOSES.values()} == set(VERDICTS)
    for verdict in VERDICTS:
        empty = MassClose(CHAT, verdict, 0.0, 0, {}, 0, 0, {}, 0, 0, 0, None, draining=False)
        assert told(PastMassClose("now", 0.0, empty)).endswith(f": {verdict.replace('_', ' ')}.")
        assert remedy(empty)


def test_a_mass_close_hurts_less_after_an_hour_and_not_after_a_day() -> None:
    """Then it is worth a look, and then it is history."""
    weights = [
        [advice.weight for advice in advise([facts(active=1)], (PastMassClose("then", ago, HERD),))]
        for ago in (3599.0, 3600.0, 86_400.0, 86_401.0)
    ]
    assert weights == [["act"], ["look"], ["look"], ["calm"]]


def test_only_the_newest_mass_close_of_each_origin_is_advice() -> None:
    """A healthy deploy after a herd means that it was put right."""
    feed = Origin("tap", "feed")
    newest_first = (
        PastMassClose("15:00 UTC", 60.0, replace(HERD, verdict="healthy")),
        PastMassClose("14:30 UTC", 1860.0, replace(HERD, origin=feed, builds=())),
        PastMassClose("14:02 UTC", 3540.0, HERD),
    )
    sentences = said(facts(active=1), mass_closes=newest_first)
    assert [(weight, says[:9]) for weight, says, _ in sentences] == [("act", "14:30 UTC"), ("calm", "15:00 UTC")]


def test_a_mass_close_under_way() -> None:
    """While it is open there is no verdict, but there are the attempts of the last minute."""
    (advice,) = advise([facts(mass_close_active=True, last_minute=312, peak_per_second=61)], ())
    assert advice == Advice(
        "act",
        "chat: a mass close is under way; 312 attempts to connect in the last minute, 61 of them in one second.",
        "See whether the service accepts connections again. It is judged once 95 % are back, or after 10 minutes.",
    )


def test_a_herd_that_was_cut_elsewhere() -> None:
    """More than half of at least 50 attempts in one second is a herd, also on a replica that lost nobody."""
    assert said(facts(last_minute=100, peak_per_second=51)) == [
        (
            "look",
            "chat: 100 attempts to connect in the last minute, 51 of them in one second: a herd, although no mass "
            "close was seen here.",
            f"Its clients were probably cut elsewhere, by another replica or a proxy. They should {BACKING_OFF}.",
        )
    ]
    for last_minute, peak in ((100, 50), (49, 49)):
        quiet = facts(active=1, last_minute=last_minute, peak_per_second=peak)
        assert advise([quiet], ()) == (NOTHING_WRONG,)


def test_shared_client_keys() -> None:
    """Where most connections cannot be told apart it is said what hides, and which setting helps."""
    assert said(facts(active=100, shared_connections=51)) == [
        (
            "look",
            "chat: most connections (51 of 100) share their client key with another one, so that delays, repeats and "
            "stuck clients stay hidden.",
            "Set targets.chat.client_key to what tells clients apart: forwarded (with trusted_proxies) behind a "
            "proxy, else header:NAME, cookie:NAME or query:NAME.",
        )
    ]
    assert advise([facts(active=100, shared_connections=50)], ()) == (NOTHING_WRONG,)


def closed(code: str, close_class: str, initiator: str, count: int) -> CloseCount:
    return CloseCount(code, close_class, initiator, count)  # type: ignore[arg-type]


NORMAL: Final = closed("1000", "normal", "client", 900)


def test_closes_that_are_errors() -> None:
    """The most frequent errors are told with what is known of their codes, three at most."""
    closes = [
        NORMAL,
        closed("1002", "protocol_error", "client", 20),
        closed("1011", "internal_error", "server", 50),
        closed("1008", "policy", "server", 30),
        closed("1006", "abnormal", "server", 40),
    ]
    sentences = said(facts(closes=closes))
    assert [says for _, says, _ in sentences] == [
        "chat: 50 of 1,040 connections closed since 09:12 UTC (5 %) ended with 1011 Internal Error by the server.",
        "chat: 40 of 1,040 connections closed since 09:12 UTC (4 %) ended with 1006 Abnormal Closure by the server.",
        "chat: 30 of 1,040 connections closed since 09:12 UTC (3 %) ended with 1008 Policy Violation by the server.",
    ]
    assert sentences[0][2].startswith("Read the reason. Keepalive:")


def test_who_closed_with_1011_has_the_cause() -> None:
    """Of a client's 1011 the service's log knows nothing."""
    by_server, by_client = (
        said(facts(closes=[NORMAL, closed("1011", "internal_error", who, 50)]))[0][2] for who in ("server", "client")
    )
    assert "the service's own log has the traceback" in by_server
    assert "the cause is in the client, and in its log" in by_client


def test_too_big_without_sizes() -> None:
    """1009s whose messages nobody saw are told by their code; else they are told by their sizes alone."""
    closes = [NORMAL, closed("1009", "too_big", "server", 100)]
    (sentence,) = said(facts(closes=closes))
    assert "ended with 1009 Message Too Big by the server" in sentence[1]
    (sentence,) = said(facts(CERTAIN, closes=closes))
    assert "37 messages refused with 1009" in sentence[1]


@pytest.mark.parametrize(
    "close",
    [
        closed("1011", "internal_error", "server", 4),
        closed("1011", "internal_error", "server", 9),
        closed("1006", "abnormal", "client", 500),
        closed("1006", "abnormal", "exporter", 500),
        closed("1001", "going_away", "server", 500),
        closed("4001", "application", "server", 500),
        closed("invalid", "invalid", "client", 500),
        closed("1011", "internal_error", "exporter", 500),
    ],
    ids=lambda close: f"{close.code}-{close.initiator}-{close.count}",
)
def test_closes_that_need_no_words(close: CloseCount) -> None:
    """Few or rare errors, networks that fail under clients, and whatever an application means by its own codes."""
    rest = replace(NORMAL, count=900 if close.count != 4 else 4)
    assert advise([facts(closes=[rest, close])], ()) == (NOTHING_WRONG,)


def test_what_a_mass_close_has_told_is_not_told_again() -> None:
    """1006s of a crash that was a mass close are no sentence of their own."""
    crash = replace(HERD, verdict="healthy", lost_by={("1006", "server"): 300}, builds=())
    closes = [NORMAL, closed("1006", "abnormal", "server", 600)]
    weights = [weight for weight, *_ in said(facts(closes=closes), mass_closes=(PastMassClose("then", 1.0, crash),))]
    assert weights == ["calm", "calm"]
    weights = [
        weight
        for weight, *_ in said(
            facts(closes=[NORMAL, closed("1006", "abnormal", "server", 601)]),
            mass_closes=(PastMassClose("then", 1.0, crash),),
        )
    ]
    assert weights == ["look", "calm"]


def test_a_probe_that_is_not_connected() -> None:
    """A user could probably not connect either; its own closes are never errors."""
    probe = Facts(Origin("probe", "chat"), "09:12 UTC", probe_up=False)
    assert said(probe)[0][1] == "chat: the probe is not connected now."
    failing = replace(probe, probe_failures={"timeout": 2, "refused": 1200, "dns": 1, "tls": 1})
    assert said(failing) == [
        (
            "act",
            "chat: the probe is not connected now; its failures since 09:12 UTC: refused (1,200), timeout (2) and "
            "dns (1).",
            "A user could probably not connect either. Its log lines say what the service answered.",
        )
    ]
    closes = [closed("1011", "internal_error", "server", 500)]
    assert advise([replace(failing, probe_up=True, closes=closes)], ()) == (NOTHING_WRONG,)


def test_calm() -> None:
    """Nothing wrong is one sentence, and so is nothing seen."""
    assert said(facts(active=7)) == [
        (
            "calm",
            "Nothing needs doing: no message was refused for its size in the last 24 hours, and nobody storms back.",
            "",
        )
    ]
    assert advise([facts(active=0), Facts(CHAT, "09:12 UTC")], ()) == (NOTHING_SEEN,)
    assert advise([], ()) == (NOTHING_SEEN,)


def test_what_hurts_comes_first() -> None:
    """Sentences are ordered by weight, whichever origin they are of."""
    herd = PastMassClose("14:02 UTC", 5000.0, HERD)
    weights = [
        weight for weight, *_ in said(facts(shared_connections=9, active=9), facts(CERTAIN), mass_closes=(herd,))
    ]
    assert weights == ["act", "look", "look"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (1_048_525, "1 MiB"),
        (1_048_500, "1,023.9 KiB"),
        (1_887_437, "1.8 MiB"),
        (1 << 30, "1 GiB"),
        (1 << 40, "1 TiB"),
        ((1 << 63) - 1, "8 EiB"),
        (1 << 80, "1,048,576 EiB"),
    ],
)
def test_sizes_in_words(number: int, text: str) -> None:
    """One decimal at most, and never 1,024 of a unit."""
    assert size(number) == text


def test_a_size_to_compare_with() -> None:
    """To the byte, as what it is compared with, and rounded, as it is configured."""
    assert exact_and_rounded(1 << 20) == "1,048,576 bytes (1 MiB)"
    assert exact_and_rounded(1000) == "1,000 bytes"


@pytest.mark.parametrize(
    ("smallest", "largest", "text"),
    [
        (1_153_434, 1_887_437, "between 1.1 and 1.8 MiB"),
        (300, 1_887_437, "between 300 bytes and 1.8 MiB"),
        (100, 300, "between 100 and 300 bytes"),
        (1_153_434, 1_153_434, "of 1,153,434 bytes"),
        (1_153_434, 1_153_500, "of about 1.1 MiB"),
    ],
)
def test_ranges_in_words(smallest: int, largest: int, text: str) -> None:
    """A unit is not said twice, and what looks the same is not called a range."""
    assert span(smallest, largest) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (0.4, "0.4 s"),
        (2.1, "2.1 s"),
        (2.0, "2 s"),
        (9.96, "10 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (172_799.0, "48 h"),
        (172_800.0, "2 days"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    """One unit, the one that fits."""
    assert lasting(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 1000, "under 1 %"),
        (61, 100, "61 %"),
        (999, 1000, "over 99 %"),
        (9, 9, "100 %"),
    ],
)
def test_shares_in_words(part: int, whole: int, text: str) -> None:
    """What is not all never reads as all, nor something as nothing."""
    assert share(part, whole) == text


def test_other_words() -> None:
    """Plurals, lists and places."""
    assert [counted(number, "client") for number in (0, 1, 1200)] == ["0 clients", "1 client", "1,200 clients"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert place(Origin("probe", "chat"), "server_to_client") == "chat (probe), server to client"


@given(st.integers(1, 1 << 64))
def test_room_is_the_next_power_of_two_above(largest: int) -> None:
    """Some receivers refuse what is exactly at the limit, so it is above; it is never absurdly large."""
    room = room_for(largest)
    if largest < 64 * MIB:
        assert room is not None
        assert room // 2 <= largest < room
        assert room & (room - 1) == 0
    else:
        assert room is None


@given(st.integers(0, 1 << 64))
def test_chunks_are_a_power_of_two_well_under_what_is_accepted(accepted: int) -> None:
    """At most a quarter of it, and more than an eighth; nothing is suggested that would be tiny."""
    chunk = chunk_under(accepted)
    if chunk is None:
        assert accepted < 16 * 1024
    else:
        assert chunk >= 4096
        assert chunk & (chunk - 1) == 0
        assert 4 * chunk <= accepted < 8 * chunk
