"""Services that never give up: each posts its events, over and over, until they are acknowledged."""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from exporter.config import Address
from tests.support.reporting import JSON, NDJSON, Answer, Event, ndjson, post
from tests.web.support import Client, connected

CODES: Final = (1000, 1001, 1006, 1009, 4001)
INITIATORS: Final = ("client", "server", "unknown")
TARGETS: Final = ("chat", "rooms")
RETRY_LATER: Final = frozenset({429, 503, 507})
PAUSE: Final = 0.003
"""Seconds between two attempts."""


class Whereabouts:
    """Where the exporter is to be found at present; None while it is not."""

    address: Address | None = None


@dataclass
class Ledger:
    """What was acknowledged: each event once, however often it was sent."""

    closes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    opens: Counter[str] = field(default_factory=Counter)
    durations: Counter[str] = field(default_factory=Counter)
    refused_bytes: int = 0
    retries: int = 0
    already_counted: int = 0
    """Requests whose first attempt had been counted, although it was not acknowledged."""
    refusals: Counter[int] = field(default_factory=Counter)

    def enter(self, events: Iterable[Event]) -> None:
        for event in events:
            target = event["target"]
            if event.get("event") == "open":
                self.opens[target] += 1
                continue
            self.closes[target, str(event["code"]), event["initiator"]] += 1
            self.durations[target] += event["duration"]
            self.refused_bytes += event.get("message_size", 0)


@dataclass
class Sender:
    """One service. It posts its events singly, or up to `most` of them at a time, one request after the other.

    Every seventh request also has events that were acknowledged before: they must be known.
    """

    name: str
    where: Whereabouts
    ledger: Ledger
    random: Random
    most: int = 1
    client: Client | None = None
    numbers: Any = field(default_factory=itertools.count)
    known: list[Event] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop`, and then what is under way."""
        async with contextlib.AsyncExitStack() as stack:
            for number in itertools.count():
                if stop.is_set():
                    return
                fresh = [self._event() for _ in range(self.random.randint(1, self.most))]
                known = self.random.sample(self.known, min(len(self.known), 3)) if number % 7 == 6 else []
                await self._until_acknowledged(fresh, known, stack)
                self.ledger.enter(fresh)
                self.known = (self.known + fresh)[-20:]

    def _event(self) -> Event:
        number = next(self.numbers)
        event: Event = {"id": f"{self.name}-{number}", "source": self.name, "target": TARGETS[number % 2]}
        if self.random.random() < 0.2:
            return event | {"event": "open"}
        code = self.random.choice(CODES)
        event |= {"code": code, "initiator": self.random.choice(INITIATORS), "duration": self.random.randint(0, 5000)}
        return event | ({"message_size": 1000, "direction": "client_to_server"} if code == 1009 else {})

    async def _until_acknowledged(
        self, fresh: list[Event], known: list[Event], stack: contextlib.AsyncExitStack
    ) -> None:
        """Post both until the answer is 200, and check what it says of each."""
        events = [*fresh, *known]
        if len(events) == 1:
            request = post(events[0], kind=JSON)
        elif self.random.random() < 0.5:
            request = post(events)
        else:
            request = post(ndjson(events), kind=NDJSON)
        attempts = 0
        while (answer := await self._attempt(request, stack)) is None:
            attempts += 1
            self.ledger.retries += 1
            await asyncio.sleep(PAUSE)
        results = json.loads(answer.body)
        duplicates = [item["index"] for item in results["items"]]
        assert results["rejected"] == 0
        assert results["accepted"] + results["duplicate"] == len(events)
        old = list(range(len(fresh), len(events)))
        if duplicates != old:
            # An attempt that was not acknowledged had been counted: then all of it, for nothing is half committed.
            assert attempts > 0, f"{self.name}: never sent before, and yet known: {events}"
            assert duplicates == list(range(len(events)))
            self.ledger.already_counted += 1

    async def _attempt(self, request: bytes, stack: contextlib.AsyncExitStack) -> Answer | None:
        """The acknowledgement, or None where there is none."""
        try:
            if self.client is None:
                if self.where.address is None:
                    return None
                self.client = await stack.enter_async_context(connected(self.where.address))
            await self.client.send(request)
            answer = await self.client.answer()
        except (OSError, EOFError):
            self.client = None
            await stack.aclose()
            return None
        if answer.status == 200:
            return answer
        assert answer.status in RETRY_LATER, f"{answer.status} {answer.body!r}"
        self.ledger.refusals[answer.status] += 1
        return None


def senders(where: Whereabouts, ledger: Ledger, seed: int) -> list[Sender]:
    """Six of them: three post single events, the others up to 10, 60 and 400 at a time."""
    return [
        Sender(f"sender-{number}", where, ledger, Random(seed * 100 + number), most)
        for number, most in enumerate((1, 1, 1, 10, 60, 400))
    ]
