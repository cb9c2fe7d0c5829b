"""Memory stays bounded, whoever comes."""

import gc
import resource

import pytest

from exporter.events import ClientKey, Ending, Event, HandshakeEnded, Origin, Passing
from exporter.insight.insight import Insight, Rules

CHAT = Origin("tap", "chat")
MIB = 1 << 20


class Deaf:
    """Takes what is derived."""

    def emit(self, event: Event) -> None:
        pass


def resident() -> int:
    """Bytes in memory now (proc(5))."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def crowd(insight: Insight, first: int, number: int) -> None:
    """Different clients, one after the other: each comes, is refused a message, goes, tries again and is lost."""
    for client in range(first, first + number):
        key = ClientKey(client * 0x9E3779B97F4A7C15 % (1 << 56))
        insight.emit(HandshakeEnded(CHAT, "accepted", "101", 0.0, key, f"app/{client}"))
        insight.emit(Ending(CHAT, "1009", "too_big", "server", Passing(5000 + client % 5000), key, "app/1"))
        insight.emit(HandshakeEnded(CHAT, "rejected", "503", 0.0, key, f"app/{client}"))
        insight.emit(Ending(CHAT, "1001", "going_away", "server", Passing(), key, "app/1"))


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize("most", [1000, 100_000])
def test_a_million_clients(most: int) -> None:
    """Once all that is remembered is there nothing grows any more: the process stays as large as it was."""
    now = 0.0
    insight = Insight(Deaf(), lambda: now, Rules(most_clients=most))
    insight.watch(CHAT, lambda user_agent: None)
    sizes = []
    number = max(most, 10_000)
    for first in range(0, 10 * number, number):
        crowd(insight, first, number)
        now += 60.0
        insight.tick()
        gc.collect()
        sizes.append(resident())
    assert max(sizes[3:]) - min(sizes[3:]) <= 16 * MIB
    assert insight.standings()[CHAT].stuck_clients == 0
