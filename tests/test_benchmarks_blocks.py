"""Generated blocks hold what was asked for, by Prometheus' own reader."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import blocks

START = 1_700_000_000_000
STEP = 15_000


@pytest.mark.needs("promtool")
def test_promtool_reads_every_sample_back(tmp_path: Path) -> None:
    """Over several chunks, of series that share them; values that stay, grow, and fall."""
    values = [[0] * 300, [number * number for number in range(300)], [7, 7, 3, 1 << 40, 0, *range(295)]]
    series = [
        ((("__name__", "up"), ("instance", "a"), ("job", "x")), 0),
        ((("__name__", "up"), ("instance", "b"), ("job", "x")), 1),
        ((("__name__", "up"), ("instance", "c"), ("job", "x")), 1),
        ((("__name__", "x_total"), ("job", "é")), 2),
    ]
    blocks.write(tmp_path, reversed(series), START, STEP, values)
    (tmp_path / "wal").mkdir()
    dump = ["promtool", "tsdb", "dump", tmp_path]
    said = subprocess.run(dump, capture_output=True, text=True, timeout=50, check=True).stdout
    expected = [
        f"{{{', '.join(f'{name}={chr(34)}{text}{chr(34)}' for name, text in labels)}}} {sample} {START + STEP * number}"
        for labels, kind in series
        for number, sample in enumerate(values[kind])
    ]
    read = [line.rsplit(" ", 2) for line in said.splitlines()]
    assert [f"{labels} {float(sample):.0f} {time}" for labels, sample, time in read] == expected
