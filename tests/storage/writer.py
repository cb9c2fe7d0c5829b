"""A process to be killed. `commit FOLDER FIRST`: groups of requests, each named once it was committed.
`create FOLDER`: one new storage after the other.
"""

import random
import sys
import time
from itertools import count
from pathlib import Path
from typing import Final

from exporter.storage import Storage
from tests.storage.support import WINDOW, Adds, Closes, keys

MAX_IDS: Final = 160_000


def request(number: int) -> Closes:
    """The request of that number: one to 400 events with ids, and none without."""
    size = random.Random(number).choice((1, 1, 3, 20, 400))
    return Closes(keys(number, size))


def open_storage(folder: Path) -> Storage:
    return Storage.open(folder, window=WINDOW, max_ids=MAX_IDS, now=time.time)


def commit(folder: Path, first: int) -> None:
    storage = open_storage(folder)
    number = first
    for size in count(1):
        group = range(number, number + size % 4 + 1)
        storage.commit([*(request(member) for member in group), Adds({})])
        number = group.stop
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def create(folder: Path) -> None:
    for number in count():
        open_storage(folder / str(number)).close()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "commit":
        commit(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        create(Path(sys.argv[2]))
