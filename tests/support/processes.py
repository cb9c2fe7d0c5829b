"""The exporter as an operator runs it: a process of its own, known by its log, its ports and its exit status."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from exporter.config import Address, UnixPath
from tests.support.loops import eventually
from tests.support.scraping import Page, scrape
from tests.support.services import ROOT

TICKS: Final = os.sysconf("SC_CLK_TCK")


class Exporter:
    """A running process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        return [line for line in self.lines if line["event"] == event]

    async def address(self, listener: str) -> Address:
        """Where its `tap` or its `metrics` are, once it has said so."""
        lines = await eventually(lambda: self.said(f"{listener} listening"), within=15)
        host, _, port = lines[0]["address"].rpartition(":")
        return Address(host, int(port))

    async def scrape(self) -> Page:
        return await scrape(await self.address("metrics"))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within: float = 10.0) -> int:
        """Its exit status."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    def cpu_seconds(self) -> float:
        """What it has used so far, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def tap_flag(upstream: Address | UnixPath) -> str:
    """A tap on a free port."""
    return f"--tap=127.0.0.1:0={upstream},target=chat"


@contextlib.asynccontextmanager
async def exporter_process(
    folder: Path, *flags: str, descriptors: int | None = None, module: str = "exporter"
) -> AsyncIterator[Exporter]:
    """Start the exporter, at most so many `descriptors` its own; it is killed if it has not ended by itself.

    `module` is what runs it: the exporter itself, or one of tests/support that changes something of it first.
    """
    command = [
        *(["sh", "-c", f'ulimit -n {descriptors}; exec "$0" "$@"'] if descriptors else []),
        *(sys.executable, "-m", module, "--web.listen-address=127.0.0.1:0", "--log.format=json", *flags),
    ]
    log = folder / "exporter.log"
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=sink)
    try:
        yield Exporter(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
