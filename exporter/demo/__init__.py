"""`websocket-exporter demo`: a WebSocket service that restarts, its clients and the exporter, all on loopback.

Nothing is staged: the service really stops listening and closes everyone with 1001, one client's messages really are
over the service's limit (1009), and everything passes through a real tap. Where the process may, a capture watches the
same connections, with nothing in their way. What the metrics say is what happened.
"""

import asyncio
import logging
import os
import random
from types import MappingProxyType
from typing import Final

from rich.console import Console

from exporter import log
from exporter.app import App, run_loop, stop_on_signals
from exporter.config import Address, CaptureConfig, Config, KeyRule, Limits, TapConfig, Target
from exporter.demo import report, screen
from exporter.demo.clients import CLIENT, crowd
from exporter.demo.scenario import Scenario
from exporter.demo.score import Board, Score
from exporter.demo.service import Service, reserved_port
from exporter.demo.tasks import running

__all__ = ["Scenario", "play", "run"]

WEB: Final = Address("127.0.0.1", 11009)
TARGET: Final = "demo"

_STDERR: Final = 2
_LOOPBACK: Final = "lo"
_SHUTDOWN_GRACE: Final = 1.0  # its connections are already closed then; the rest is for a last scrape


def run(web: Address | None = None, scenario: Scenario | None = None) -> int:
    """Play until SIGINT or SIGTERM, with metrics at `web`; returns the exit status. Raises StartError.

    Shows a table where standard output is a terminal, else logs.
    """
    terminal = screen.console()
    log.configure(_log_level(table=terminal is not None), "auto")
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it logs each handshake that a deploy cuts short

    async def main() -> None:
        stopping = asyncio.Event()
        stop_on_signals(stopping.set)
        await play(web or WEB, scenario or Scenario(), stopping, terminal)

    return run_loop(main)


async def play(web: Address, scenario: Scenario, stopping: asyncio.Event, terminal: Console | None = None) -> None:
    """Play until `stopping`. Clients leave first, then the service ends, then the exporter. Raises StartError."""
    chance = random.Random()
    board = Board(
        {
            "well-behaved": Score(scenario.well_behaved),
            "herd": Score(scenario.herd),
            "too big": Score(scenario.too_big),
        }
    )
    with reserved_port() as upstream:
        app = App(_config(web, upstream, scenario))
        await app.open()
        shown = report.places(app.web_address, app.addresses[0])
        service = Service(upstream, scenario, board, chance)
        clients = [client.run() for client in crowd(app.addresses[0], scenario, board, chance)]
        if terminal is None:
            telling = report.log_summaries(board, app.recorder, shown)
        else:
            telling = screen.show(terminal, board, app.recorder, shown)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run())
            async with running(service.run()), running(*clients), running(telling):
                await stopping.wait()
            app.stop()


def _config(web: Address, upstream: Address, scenario: Scenario) -> Config:
    return Config(
        targets=MappingProxyType(
            {
                TARGET: Target(
                    TARGET,
                    limits=Limits(client_to_server=scenario.message_limit),
                    client_key=KeyRule("query", CLIENT),
                )
            }
        ),
        tap=(TapConfig(Address("127.0.0.1", 0), upstream, TARGET),),
        capture=(CaptureConfig(_LOOPBACK, upstream.port, TARGET),) if may_capture() else (),
        web_listen_address=web,
        web_telemetry_path="/metrics",
        web_enable_lifecycle=False,
        log_level="info",
        log_format="auto",
        shutdown_grace=_SHUTDOWN_GRACE,
    )


def may_capture() -> bool:
    """Whether this process may watch packets: then the demo has a capture beside its tap, to compare them live."""
    from exporter.sources.capture.opening import packet_socket

    try:
        packet_socket().close()
    except OSError:
        return False
    return True


def _log_level(*, table: bool) -> str:
    """Lines on the terminal that shows the table would tear it apart; sent elsewhere they are worth having."""
    return "error" if table and os.isatty(_STDERR) else "info"
