"""The table of alerts/README.md: which alert fired in which simulated scenario, and when. Writes it when it is run."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.alerts_quiet import SILENT
from tests.alerts_scenarios import T
from tests.alerts_support import ALERTS, Firings
from tests.alerts_troubles import FIRES

MARKS: Final = ("<!-- written by `python -m tests.alerts_table` -->\n", "<!-- end -->\n")

COLUMNS: Final = {
    ("WebSocketMessageTooBigFirstSeen", "info"): "First&shy;Seen",
    ("WebSocketMessageTooBigSpike", "warning"): "Too&shy;Big&shy;Spike",
    ("WebSocketMessageTooBigSustained", "warning"): "Sus&shy;tained",
    ("WebSocketMessageTooBigLoop", "warning"): "Loop",
    ("WebSocketMessageSizeNearLimit", "warning"): "Near&shy;Limit",
    ("WebSocketReconnectStorm", "critical"): "**Storm**",
    ("WebSocketReconnectSurgeAfterRestart", "warning"): "Surge&shy;After&shy;Restart",
    ("WebSocketReconnectHerd", "info"): "Herd",
    ("WebSocketAbnormalCloseSurge", "warning"): "Abnormal&shy;Close&shy;Surge",
    ("WebSocketServiceNotAccepting", "critical"): "**Not&shy;Accepting**",
    ("WebSocketServiceNotAccepting", "warning"): "Not&shy;Accepting",
    ("WebSocketTapConnectionLimit", "warning"): "Connection&shy;Limit",
}
"""The alerts that a simulated service can fire, critical ones in bold."""


def table(troubles: Firings) -> str:
    """Seconds from the moment something happened until the alert fired; a dot where it stayed silent."""
    return "".join(_rows(troubles))


def _rows(troubles: Firings) -> Iterable[str]:
    yield f"| scenario | {' | '.join(COLUMNS.values())} |\n"
    yield f"|---|{'---|' * len(COLUMNS)}\n"
    for name in FIRES:
        fired = (troubles.get((name, *pair)) for pair in COLUMNS)
        yield f"| {name} | {' | '.join('·' if one is None else f'{one.first - T} s' for one in fired)} |\n"
    for name in SILENT:
        yield f"| {name} | {' | '.join('·' for _ in COLUMNS)} |\n"


def main() -> None:
    from tests.test_alerts_scenarios import FIRST, troubled

    begin, end = MARKS
    page = ALERTS / "README.md"
    before, _, rest = page.read_text().partition(begin)
    with tempfile.TemporaryDirectory() as folder:
        shown = table(troubled(*FIRST, Path(folder)))
    page.write_text(before + begin + shown + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
