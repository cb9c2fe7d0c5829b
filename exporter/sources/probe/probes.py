"""All probes of this process."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from exporter.closecodes import Vocabulary
from exporter.config.probes import ProbeConfig
from exporter.events import Sink
from exporter.sources.probe.opening import Opener
from exporter.sources.probe.probe import Probe, Tools


class Probes:
    """Runs a probe for each of `configs`, the codes of whose targets have the labels of `vocabularies`.

    `clock` is monotonic, `now` the wall clock in Unix seconds, `uniform(a, b)` the randomness of the delays.
    """

    def __init__(
        self,
        configs: Sequence[ProbeConfig],
        vocabularies: Mapping[str, Vocabulary],
        sink: Sink,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        tools = Tools(Opener(clock, now), uniform)
        self._probes = {config.target: Probe(config, vocabularies[config.target], sink, tools) for config in configs}
        self._running: list[asyncio.Task[NoReturn]] = []
        self._stopped = False

    async def run(self) -> None:
        """Probe until `stop`; cancelled, it cuts all connections."""
        async with asyncio.TaskGroup() as tasks:
            if not self._stopped:
                self._running = [tasks.create_task(probe.run()) for probe in self._probes.values()]

    async def stop(self) -> None:
        """End every connection with 1000, and wait until that is done."""
        self._stopped = True
        for probe in self._probes.values():
            probe.polite = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def update(self, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Take these labels of close codes from now on."""
        for target, probe in self._probes.items():
            probe.vocabulary = vocabularies.get(target, probe.vocabulary)
