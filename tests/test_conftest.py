"""Tests that need a program: skipped and counted by its name where it is missing, failed where it must be there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CONFTEST: Final = Path(__file__).parent / "conftest.py"

SUITE: Final = """
import pytest

@pytest.mark.needs("no-such-program")
def test_one(): pass

@pytest.mark.needs("bash", "no-such-program")
def test_two(): pass

@pytest.mark.needs("bash")
def test_three(): pass

@pytest.mark.skip(reason="for a reason of its own")
def test_four(): pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with this repository's conftest.py and four tests."""
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    return tmp_path


def run_suite(folder: Path, required: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=folder,
        env=os.environ | {"TESTS_REQUIRE_PROGRAMS": required, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_missing_programs_are_counted_by_name(suite: Path) -> None:
    """Tests without their program are skipped; the summary names each program and what it kept from running."""
    done = run_suite(suite, required="0")
    assert done.returncode == 0
    assert "no-such-program: 2 tests skipped" in done.stdout.splitlines()
    assert "1 passed, 3 skipped" in done.stdout.splitlines()[-1]


def test_required_programs_fail_what_needs_them(suite: Path) -> None:
    """In continuous integration a missing program fails the test that needs it."""
    done = run_suite(suite, required="1")
    assert done.returncode == 1
    assert "needs no-such-program" in done.stdout
    assert "1 passed, 1 skipped, 2 errors" in done.stdout.splitlines()[-1]
