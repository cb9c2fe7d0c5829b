"""What the demo tells, in a terminal or in the log: where to look, and what the exporter has counted."""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import structlog

from exporter import closecodes
from exporter.config import Address
from exporter.demo.score import Board
from exporter.metrics import catalogue
from exporter.metrics.recorder import Recorder

SUMMARY_EVERY: Final = 10.0
"""Seconds between two lines of the log that say how everybody fares."""

_ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    """Where to look, as things to open and to type."""

    status: str
    metrics: str
    look_for: str
    websocket: str


def places(web: Address, tap: Address) -> Places:
    """The places of a demo whose exporter serves metrics at `web` and relays from `tap`."""
    status = f"http://{Address(_ANYWHERE.get(web.host, web.host), web.port)}/"
    metrics = f"{status}metrics"
    return Places(status, metrics, f"curl -s {metrics} | grep '{catalogue.CLOSES.name}.* [1-9]'", f"ws://{tap}/")


def closes(recorder: Recorder) -> dict[str, dict[str, int]]:
    """Closes that the tap has counted, by code label and initiator, in the order of the codes; no zeros."""
    found: dict[str, dict[str, int]] = {}
    family = next(family for family in recorder.collect() if catalogue.CLOSES.name == f"{family.name}_total")
    for sample in family.samples:
        if sample.value and sample.labels["source"] == "tap":
            initiators = found.setdefault(sample.labels["code"], {})
            initiators[sample.labels["initiator"]] = initiators.get(sample.labels["initiator"], 0) + int(sample.value)
    return dict(sorted(found.items()))


def code_and_name(label: str) -> str:
    """`1009 Message Too Big`; a label that is no registered code stands alone."""
    entry = closecodes.REGISTRY.get(int(label)) if label.isdecimal() else None
    return f"{label} {entry.name}" if entry else label


async def log_summaries(board: Board, recorder: Recorder, shown: Places) -> None:
    """Log where to look, then now and then how everybody fares, until cancelled."""
    _log.info("demo", **asdict(shown))
    while True:
        await asyncio.sleep(SUMMARY_EVERY)
        _log.info("summary", **_summary(board, recorder, time.monotonic()))


def _summary(board: Board, recorder: Recorder, now: float) -> dict[str, Any]:
    clients = {
        habit: {
            "clients": score.clients,
            "connected": score.connected,
            "last_close": score.last_close and code_and_name(str(score.last_close[0])),
            "lost": score.lost,
            "tried_within_1s": score.at_once,
            "refused": score.refused,
        }
        for habit, score in board.scores.items()
    }
    return {
        "deploys": board.deploys,
        "next_deploy_seconds": None if board.next_deploy is None else round(board.next_deploy - now),
        "clients": clients,
        "closes": closes(recorder),
    }
