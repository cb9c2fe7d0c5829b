"""The demo in a terminal: a live table of how each habit fares, and where to look for more."""

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from exporter.demo.report import Places, closes, code_and_name
from exporter.demo.score import Board, Score
from exporter.events import Initiator
from exporter.metrics.recorder import Recorder

_REFRESH: Final = 0.5
_INITIATORS: Final[tuple[Initiator, ...]] = ("server", "client", "exporter")


def console() -> Console | None:
    """The terminal on standard output; None if that is no terminal, or one that cannot move its cursor."""
    found = Console(highlight=False)
    return found if found.file.isatty() and found.is_interactive else None


async def show(terminal: Console, board: Board, recorder: Recorder, shown: Places) -> None:
    """Keep the table current until cancelled; the last one stays on the screen."""

    def current() -> RenderableType:
        return view(board, closes(recorder), shown, time.monotonic())

    with Live(current(), console=terminal, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(_REFRESH)
            # Writing to a terminal blocks while it is paused (Ctrl-S): in a thread, the relay goes on.
            await asyncio.to_thread(live.update, current(), refresh=True)


def view(board: Board, counted: dict[str, dict[str, int]], shown: Places, now: float) -> RenderableType:
    """The whole picture at the moment `now`."""
    return Group(*_lines(board, counted, shown, now))


def _lines(board: Board, counted: dict[str, dict[str, int]], shown: Places, now: float) -> Iterator[RenderableType]:
    """Addresses first: a terminal that is not high enough cuts off the end."""
    yield Text.assemble(("websocket-exporter demo", "bold"), f"   {_deploys(board, now)}, Ctrl-C ends it")
    yield Text.assemble("In words    ", (shown.status, "cyan"), "   in numbers  ", (shown.metrics, "cyan"))
    yield Text.assemble("WebSockets  ", (shown.websocket, "cyan"), " through the exporter, for your own clients")
    yield Text(shown.look_for, "cyan")
    yield ""
    yield _habits(board)
    yield ""
    yield _closes(counted)


def _deploys(board: Board, now: float) -> str:
    if board.next_deploy is None:
        return "the service is away for its deploy"
    return f"next deploy in {max(0, math.ceil(board.next_deploy - now))} s"


def _habits(board: Board) -> Table:
    table = _table("clients", "connected", "last close", "tried\nwithin 1 s", "refused\nsince then")
    for habit, score in board.scores.items():
        table.add_row(
            habit,
            f"{score.connected} of {score.clients}",
            _last_close(score),
            f"{score.at_once} of {score.lost}" if board.deploys else "",
            str(score.refused),
        )
    return table


def _last_close(score: Score) -> str:
    if score.last_close is None:
        return ""
    code, initiator = score.last_close
    return f"{code_and_name(str(code))}, {initiator}"


def _closes(counted: dict[str, dict[str, int]]) -> Table:
    table = _table("closes the exporter counted", *(f"by {side}" for side in _INITIATORS))
    for label, initiators in counted.items():
        table.add_row(
            code_and_name(label),
            *(str(initiators.get(initiator, 0)) for initiator in _INITIATORS),
            style={"1001": "yellow", "1009": "red"}.get(label, ""),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(first, no_wrap=True)
    for header in others:
        table.add_column(header, justify="left" if header == "last close" else "right", no_wrap=True)
    return table
