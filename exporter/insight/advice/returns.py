"""Advice on clients that come back: how each mass close went, whose clients did it wrong, and what to change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from exporter.events import BuildReturns, Initiator, MassClose, Standing, Verdict
from exporter.insight.advice.facts import Advice, Facts, PastMassClose
from exporter.insight.advice.words import by, counted, lasting, listed, place, share

RECENT: Final = 3600.0
"""Seconds for which a mass close is something that hurts now."""
DAY: Final = 86400.0
"""Seconds after which a mass close is history: it stays in the list, without advice."""
ENOUGH: Final = 50
"""Attempts from which on their shape says anything, as for the verdicts of mass closes."""
WORST: Final = 3
"""Builds that are named in a sentence."""
KINDS: Final = 3
"""Ways in which connections were lost that are named in a sentence."""

BACKING_OFF: Final = (
    "wait a random 0-5 s (more for a large fleet) before the first attempt, then back off exponentially with full "
    "jitter and a cap, and reset that only after 30 s of a stable connection"
)


def on_returns(facts: Facts) -> Iterator[Advice]:
    """What is going on at this origin now."""
    standing = facts.standing
    if standing is None:
        return
    where = place(facts.origin)
    attempts = (
        f"{counted(standing.last_minute, 'attempt')} to connect in the last minute, "
        f"{standing.peak_per_second:,} of them in one second"
    )
    if standing.mass_close_active:
        yield Advice(
            "act",
            f"{where}: a mass close is under way; {attempts}.",
            "See whether the service accepts connections again. It is judged once 95 % are back, or after 10 minutes.",
        )
    elif standing.last_minute >= ENOUGH and 2 * standing.peak_per_second > standing.last_minute:
        yield Advice(
            "look",
            f"{where}: {attempts}: a herd, although no mass close was seen here.",
            "Its clients were probably cut elsewhere, by another replica or a proxy. " + _sentence(BACKING_OFF, "They"),
        )
    yield from _shared(facts, standing)


def on_mass_close(past: PastMassClose) -> Iterator[Advice]:
    """What to learn from a mass close of the last day."""
    if past.ago > DAY:
        return
    mass_close = past.mass_close
    hurts = mass_close.verdict in ("herd", "amplified", "unrecovered")
    if hurts or (mass_close.verdict == "moved" and not mass_close.draining):
        yield Advice("act" if hurts and past.ago < RECENT else "look", told(past), remedy(mass_close))
    else:
        yield Advice("calm", told(past), remedy(mass_close))


def told(past: PastMassClose) -> str:
    """A mass close in one sentence."""
    mass_close = past.mass_close
    gap = "nobody was accepted again" if mass_close.gap is None else f"service back after {lasting(mass_close.gap)}"
    draining = ", while this exporter was shutting down" if mass_close.draining else ""
    parts = [
        f"{past.when}, {place(mass_close.origin)}: {_lost(mass_close)}{draining}",
        gap,
        f"{_SHAPES[mass_close.verdict](mass_close)}: {mass_close.verdict.replace('_', ' ')}",
    ]
    return f"{', '.join(parts)}{_blamed(mass_close)}."


def remedy(mass_close: MassClose) -> str:
    """What to do about a mass close."""
    match mass_close.verdict:
        case "moved" if mass_close.draining:
            return "Nothing here: clients were meant to go elsewhere. The other replicas' pages say how they came back."
        case "unrecovered" if 2 * (mass_close.lost - mass_close.tried) > mass_close.lost - mass_close.back:
            return (
                "Most of those missing never tried to come back: give these clients automatic reconnection. "
                + _sentence(BACKING_OFF, "They")
            )
        case "unrecovered" if mass_close.refused:
            return (
                f"This exporter itself refused {mass_close.refused:,} of their handshakes: its connection limit is too "
                "low (limits.connections, or the limit of open files)."
            )
        case "unrecovered" if mass_close.gap is None:
            return "They tried and nobody got in: the service is down, or rejects them. See its log and its handshakes."
        case "herd" if not worst(mass_close.builds) and any(build.rhythm == "jittered" for build in mass_close.builds):
            return (
                "Its clients do wait at random, but not for long enough: spread the first attempt over more time, 30 s "
                "or a minute for a large fleet. On the server, drain in batches instead of closing everyone at once."
            )
        case verdict:
            return _REMEDIES[verdict]


def worst(builds: Sequence[BuildReturns]) -> list[BuildReturns]:
    """The builds without backoff or without jitter, those with most clients first."""
    wrong = [build for build in builds if build.rhythm in ("immediate", "fixed_interval")]
    return sorted(wrong, key=lambda build: -build.delays)[:WORST]


def _sentence(text: str, who: str) -> str:
    return f"{who} should {text}."


def _lost(mass_close: MassClose) -> str:
    kinds = _kinds(mass_close.lost_by)
    lost = counted(mass_close.lost, "connection")
    if len(kinds) == 1:
        return f"{lost} lost to {kinds[0][1]}"
    named = [f"{number:,} to {kind}" for number, kind in kinds[:KINDS]]
    others = sum(number for number, _ in kinds[KINDS:])
    return f"{lost} lost ({listed(named + ([f'{others:,} otherwise'] if others else []))})" if named else f"{lost} lost"


def _kinds(lost_by: Mapping[tuple[str, Initiator], int]) -> list[tuple[int, str]]:
    kinds = ((number, f"{code}{by(initiator)}") for (code, initiator), number in lost_by.items() if number)
    return sorted(kinds, key=lambda kind: -kind[0])


def _of_returns(mass_close: MassClose) -> str:
    return f"{share(mass_close.busiest_second, mass_close.returns)} of the {mass_close.returns:,} returns in one second"


def _amplified(mass_close: MassClose) -> str:
    each = mass_close.answered / mass_close.returns if mass_close.returns else float(mass_close.answered)
    rejected = share(mass_close.rejected, mass_close.answered)
    return f"{each:.1f} handshakes answered for each of {mass_close.returns:,} returns, {rejected} of them rejected"


def _unrecovered(mass_close: MassClose) -> str:
    never = max(0, mass_close.lost - mass_close.tried)
    silent = f", {never:,} never tried" if never else ""
    return f"only {mass_close.back:,} of {mass_close.lost:,} connected again after {lasting(mass_close.lasted)}{silent}"


def _few(mass_close: MassClose) -> str:
    return f"{counted(mass_close.returns, 'client')} came back"


def _healthy(mass_close: MassClose) -> str:
    return f"{share(mass_close.back, mass_close.lost)} are back, at most {_of_returns(mass_close)}"


def _moved(mass_close: MassClose) -> str:
    return f"{counted(mass_close.returns, 'client')} came back here"


_SHAPES: Final[dict[Verdict, Callable[[MassClose], str]]] = {
    "moved": _moved,
    "unrecovered": _unrecovered,
    "too_few": _few,
    "amplified": _amplified,
    "herd": _of_returns,
    "healthy": _healthy,
}

_REMEDIES: Final[dict[Verdict, str]] = {
    "moved": (
        "Compare websocket_connections_active over all replicas: where there is another one, they are probably there. "
        "If this is the only one they are gone: see whether the service accepts connections."
    ),
    "unrecovered": (
        "They tried, and most did not get in or did not stay: see the service's log, and its handshakes by status."
    ),
    "too_few": "Too few came back to judge how they do it. If the close was not planned, ask why the server left.",
    "amplified": (
        "Clients try again without waiting, rejected or cut off once more. In the client, "
        f"{BACKING_OFF}; let the service refuse early, with 503, what it cannot keep."
    ),
    "herd": f"In the client, {BACKING_OFF}. On the server, drain in batches instead of closing everyone at once.",
    "healthy": "Nothing to do.",
}


def _blamed(mass_close: MassClose) -> str:
    if mass_close.verdict == "unrecovered":
        missing = [build for build in mass_close.builds if 5 * build.returned < 4 * build.lost]
        missing = sorted(missing, key=lambda build: build.returned - build.lost)[:WORST]
        named = [f"{build.build} ({build.returned:,} of {build.lost:,} back)" for build in missing]
        return f"; most are missing of {listed(named)}" if named else ""
    if mass_close.verdict in ("herd", "amplified"):
        return "".join(f"; {what}" for what in _blamed_for_rhythm(worst(mass_close.builds)))
    return ""


def _blamed_for_rhythm(builds: Sequence[BuildReturns]) -> Iterator[str]:
    """Who does what wrong: those that do not wait at all, and those that all wait for the same time."""
    at_once = [
        f"{build.build} ({share(build.at_once, build.delays)} tried within 1 s)"
        for build in builds
        if build.rhythm == "immediate"
    ]
    on_a_timer = [
        f"{build.build} (after {lasting(build.median_delay or 0.0)})"
        for build in builds
        if build.rhythm == "fixed_interval"
    ]
    if at_once:
        yield f"do not back off: {listed(at_once)}"
    if on_a_timer:
        yield f"back off without jitter: {listed(on_a_timer)}"


def _shared(facts: Facts, standing: Standing) -> Iterator[Advice]:
    if facts.active and 2 * standing.shared_connections > facts.active:
        yield Advice(
            "look",
            f"{place(facts.origin)}: most connections ({standing.shared_connections:,} of {facts.active:,}) share "
            "their client key with another one, so that delays, repeats and stuck clients stay hidden.",
            f"Set targets.{facts.origin.target}.client_key to what tells clients apart: forwarded (with "
            "trusted_proxies) behind a proxy, else header:NAME, cookie:NAME or query:NAME.",
        )
