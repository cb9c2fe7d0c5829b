"""Programs that pip cannot bring: silent when there, named with the exact command when they cannot be installed."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).parent.parent.parent / "scripts/debian-programs"


def run_script(*pairs: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash") or "bash", SCRIPT, *pairs],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_programs_that_are_there_need_nothing(tmp_path: Path) -> None:
    """When every program is found, nothing is printed or installed."""
    (tmp_path / "promtool").symlink_to("/bin/sh")
    done = run_script("promtool=prometheus", path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_cannot_be_installed_is_named_with_the_command(tmp_path: Path) -> None:
    """Without apt-get the missing programs and the one command that brings them are printed; nothing fails."""
    pairs = ("nothing-1=a-package", "nothing-2=b-package", "nothing-3=a-package")
    done = run_script(*pairs, path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "missing: nothing-1 nothing-2 nothing-3 (what needs them is skipped)."
        " On Debian: sudo apt-get install --no-install-recommends a-package b-package\n"
    )
