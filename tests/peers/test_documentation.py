"""What docs/what-you-will-see.md says of a server is what the rows about it assert."""

import re
from pathlib import Path
from typing import Final

from tests.peers.peers import SERVERS
from tests.peers.rows import cells
from tests.peers.test_servers import FIRST_CLOSE

PAGE: Final = Path(__file__).parents[2] / "docs/what-you-will-see.md"
COLUMNS: Final = ("sigterm", "oversize", "no-pong", "raise")
NAMES: Final = {"Node ws": "ws", "uWebSockets.js": "uwebsockets"}
WORDS: Final = {"none": "1006", "empty": "1005", "stays": "-"}


def documented() -> dict[tuple[str, str], str]:
    """The code that each cell of the page's first table begins with, by server and what it meets."""
    table = PAGE.read_text().partition("| server |")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.sub(r"[`*]", "", table).split("\n")]
    return {
        (NAMES.get(name, name.replace(", ", "-")), column): WORDS.get(first, first)
        for name, *found in lines[2:]
        for column, cell in zip(COLUMNS, found, strict=True)
        for first in re.split(r"\W", cell)[:1]
    }


def test_the_page_says_what_the_rows_assert() -> None:
    """For each server of the matrix the page has the codes of a deploy, an oversize message, silence and a failure."""
    asserted = {key: code for key, code in cells(FIRST_CLOSE).items() if key[1] in COLUMNS}
    assert asserted == {key: code for key, code in documented().items() if key[0] in SERVERS}
