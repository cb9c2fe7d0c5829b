"""The matrix runner: a failing row gets a second chance, and is named for needing it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

RUNNER: Final = Path(__file__).parent.parent.parent / "scripts/matrix.py"

PASSING: Final = "import pytest\n\n@pytest.mark.matrix\ndef test_steady(): pass\n"
FLAKY: Final = """
import pathlib, pytest

@pytest.mark.matrix
def test_flaky():
    been_here = pathlib.Path("been-here")
    try:
        assert been_here.exists()
    finally:
        been_here.touch()
"""
FAILING: Final = "import pytest\n\n@pytest.mark.matrix\ndef test_broken(): assert False\n"


def run_matrix(folder: Path, *, plugins: bool = False, **rows: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = matrix\naddopts = -m 'not matrix'\n")
    (folder / "test_core.py").write_text("def test_core(): pass\n")
    for name, code in rows.items():
        path = folder / f"{name}.py" if "/" in name else folder / f"test_{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    # Nothing else here needs the plugins that are installed, and each takes its time to load.
    env = os.environ | ({} if plugins else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    return subprocess.run(
        [sys.executable, RUNNER], cwd=folder, env=env, capture_output=True, text=True, timeout=50, check=False
    )


def test_no_rows_is_no_failure(tmp_path: Path) -> None:
    """A matrix without rows passes and says that it has none."""
    done = run_matrix(tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "matrix: no rows")


def test_passing_rows_run_once(tmp_path: Path) -> None:
    """Passing rows run once, without the core tests, and the run ends with pytest's counts."""
    done = run_matrix(tmp_path, steady=PASSING)
    assert done.returncode == 0
    assert "1 passed, 1 deselected" in done.stdout.splitlines()[-1]


def test_a_flaky_row_passes_and_is_named(tmp_path: Path) -> None:
    """A row that fails and then passes leaves the run green, and its name in the output."""
    done = run_matrix(tmp_path, steady=PASSING, flaky=FLAKY)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2:] == [
        "flaky: test_flaky.py::test_flaky",
        "matrix: 0 failed twice, 1 flaky",
    ]


def test_a_row_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    """A broken row fails the run, and a flaky one beside it is still named."""
    done = run_matrix(tmp_path, flaky=FLAKY, broken=FAILING)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == [
        "flaky: test_flaky.py::test_flaky",
        "matrix: 1 failed twice, 1 flaky",
    ]


def test_a_file_that_cannot_be_collected_fails_at_once(tmp_path: Path) -> None:
    """A syntax error is no flaky row: the run fails without a second try."""
    done = run_matrix(tmp_path, wrong="def (")
    assert done.returncode == 2
    assert "once more" not in done.stdout


def test_rows_side_by_side_and_those_alone(tmp_path: Path) -> None:
    """Both kinds run, each once; a failure among either fails the run, and a second try may save it."""
    together = {"tests/test_alerts": PASSING, "tests/peers/test_pairs": FLAKY, "alone": PASSING}
    done = run_matrix(tmp_path, plugins=True, **together)
    assert done.returncode == 0, done.stdout
    assert "2 workers" in done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "1 passed, 1 deselected" in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "flaky: tests/peers/test_pairs.py::test_flaky",
        "matrix: 0 failed twice, 1 flaky",
    ]


def test_the_rows_side_by_side_are_there() -> None:
    """A file that was renamed would run alone without a word."""
    sys.path.insert(0, str(RUNNER.parent))
    try:
        from matrix import SIDE_BY_SIDE
    finally:
        sys.path.remove(str(RUNNER.parent))
    root = RUNNER.parent.parent
    assert [path for path in SIDE_BY_SIDE if not (root / path).is_file()] == []
