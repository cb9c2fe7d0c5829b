"""The parts of `websocket-exporter demo` as containers of their own, with a real exporter between them.

python demo.py service :8081           the service, which restarts every 40 s and refuses large messages
python demo.py clients exporter:8080   its clients, through the tap at that address
"""

import asyncio
import random
import sys

from exporter import log
from exporter.app import stop_on_signals
from exporter.config import Address
from exporter.demo import Scenario
from exporter.demo.clients import crowd
from exporter.demo.score import Board, Score
from exporter.demo.service import Service
from exporter.demo.tasks import running


async def play(part: str, address: Address) -> None:
    """Play one part until SIGTERM."""
    stopping = asyncio.Event()
    stop_on_signals(stopping.set)
    scenario, chance = Scenario(), random.Random()
    habits = {"well-behaved": scenario.well_behaved, "herd": scenario.herd, "too big": scenario.too_big}
    board = Board({habit: Score(count) for habit, count in habits.items()})
    if part == "service":
        parts = [Service(address, scenario, board, chance).run()]
    else:
        parts = [client.run() for client in crowd(address, scenario, board, chance)]
    async with running(*parts):
        await stopping.wait()


if __name__ == "__main__":
    _, part, address = sys.argv
    host, _, port = address.rpartition(":")
    log.configure("info", "json")
    asyncio.run(play(part, Address(host, int(port))))
