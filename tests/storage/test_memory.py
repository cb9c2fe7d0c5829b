"""However many ids are stored, the process stays as small."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

MIB: Final = 1 << 20

CODE: Final = """
import os, sys, time
from pathlib import Path
from exporter.storage import Storage
from tests.storage.support import Closes, keys

storage = Storage.open(Path(sys.argv[1]), window=3600.0, max_ids=5_000_000, now=time.time)
stored = 0
for goal in map(int, sys.argv[2:]):
    while stored < goal:
        storage.commit([Closes(keys(stored, 1000))])
        stored += 1000
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    print(storage.ids, resident * os.sysconf("SC_PAGE_SIZE"))
storage.close()
"""


@pytest.mark.parametrize(
    ("few", "many"),
    [(100_000, 300_000), pytest.param(300_000, 1_200_000, marks=[pytest.mark.matrix, pytest.mark.timeout(280)])],
)
def test_memory_does_not_grow_with_the_ids(few: int, many: int, tmp_path: Path) -> None:
    """Within a few MiB, once those that wait in memory are as many as they may be."""
    command = [sys.executable, "-c", CODE, str(tmp_path), str(few), str(many)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": "."})
    (ids_before, before), (ids_after, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (ids_before, ids_after) == (few, many)
    assert after - before < 4 * MIB
