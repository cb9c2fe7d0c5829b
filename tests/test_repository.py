"""The repository itself: nothing generated or local in it, requirements pinned, documented commands real."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent

REGISTRIES: Final = re.compile(
    r"py(?:)pi\.org|files\.python(?:)hosted|registry\.(?:)npmjs|--(?:extra-)?(?:)index-url|--(?:)find-links"
)
"""Addresses of package registries and options that name one. `(?:)` keeps this file from matching itself."""

GENERATED: Final = re.compile(r"(^|/)(__pycache__|node_modules|\.venv|\.cache|dist|build)/|\.(pyc|whl|egg-info|log)$")

LOCKED: Final = ("requirements.txt", "requirements-build.txt", "requirements-dev.txt", "requirements-peers.txt")


@pytest.fixture(scope="module")
def files() -> list[str]:
    """Every file that is in the repository or would be added to it."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    return [name for name in names.split("\0") if (ROOT / name).is_file()]


def pins(name: str) -> dict[str, str]:
    """The requirements of a locked file: normalised name -> everything said about it, on one line."""
    text = re.sub(r"(?m)^\s*#.*\n?", "", (ROOT / name).read_text()).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return {normalised(re.split(r"[=<>!~; ]", line)[0]): line for line in lines}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_file_names_a_package_registry(files: list[str]) -> None:
    """Requirements are pinned by version and hash; where to fetch them from is each machine's own business."""
    assert REGISTRIES.search("https://py" + "pi.org/simple")
    assert [name for name in files if REGISTRIES.search((ROOT / name).read_text(errors="replace"))] == []


def test_no_file_is_generated_by_a_run(files: list[str]) -> None:
    """Bytecode, caches, environments, distributions and logs stay out of the repository."""
    assert [name for name in files if GENERATED.search(name)] == []


def test_text_ends_in_one_newline(files: list[str]) -> None:
    """Every text file ends in exactly one newline and has no carriage return."""
    texts = [name for name in files if re.search(r"(\.(py|md|toml|yaml|yml|txt|in|json|service)|Makefile)$", name)]
    contents = {name: (ROOT / name).read_bytes() for name in texts}
    assert [name for name, text in contents.items() if text and not re.search(rb"[^\n]\n\Z", text)] == []
    assert [name for name, text in contents.items() if b"\r" in text] == []


@pytest.mark.parametrize("name", LOCKED)
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    """Each line is NAME==VERSION with at least one SHA-256."""
    locked = pins(name)
    assert len(locked) > 3
    for line in locked.values():
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), line


def test_what_the_project_asks_for_is_locked() -> None:
    """Each dependency and the build backend of pyproject.toml is in its lock; `make lock` renews them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = {normalised(re.split(r"[=<>!~; ]", line)[0]) for line in project["project"]["dependencies"]}
    assert runtime <= set(pins("requirements.txt"))
    assert "hatchling" in pins("requirements-build.txt")
    development = pins("requirements-dev.txt")
    for name in ("requirements.txt", "requirements-build.txt"):
        assert pins(name).items() <= development.items(), "versions differ between the locks"


def makefile_targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_documented_make_commands_exist(page: str) -> None:
    """Each `make X` in code on the page is a target of the Makefile."""
    code = re.findall(r"```.*?```|`[^`\n]+`", (ROOT / page).read_text(), re.DOTALL)
    commands = {target for text in code for target in re.findall(r"(?m)(?:^|`|\s)make ([a-z-]+)", text)}
    assert commands
    assert commands <= makefile_targets()


@pytest.mark.needs("make")
def test_every_make_command_explains_itself() -> None:
    """`make`, which is `make help`, lists each command with a sentence."""
    help_text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    listed = set(re.findall(r"(?m)^make ([a-z-]+) +\S", help_text))
    internal = {"test-programs", "node-peers"}
    assert listed == makefile_targets() - internal
    assert {"run", "test", "matrix", "bench"} <= listed


@pytest.mark.needs("make")
def test_the_first_run_says_why_it_takes_a_while(tmp_path: Path) -> None:
    """Before anything is installed there is a line that says so; the commands themselves are not printed."""
    plan = ["make", "--dry-run", "run", f"VENV={tmp_path}"]
    lines = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    said = next(number for number, line in enumerate(lines) if line.startswith('echo "Installing websocket-exporter'))
    installing = [number for number, line in enumerate(lines) if " -m pip install " in line]
    assert said < min(installing)
    recipe = (ROOT / "Makefile").read_text().partition("$(VENV)/.installed:")[2].partition("\n\n")[0]
    assert all(line.startswith("\t@") for line in recipe.splitlines()[1:])


@pytest.mark.parametrize("name", [".ci/run", "scripts/lock", "scripts/debian-programs"])
def test_scripts_are_executable(name: str) -> None:
    """Scripts can be started by name on a clean checkout."""
    assert os.access(ROOT / name, os.X_OK)


def test_the_continuous_integration_runs_both_suites() -> None:
    """.ci/run is `make test` and then `make matrix`."""
    commands = re.findall(r"(?m)^make (\w+)", (ROOT / ".ci/run").read_text())
    assert commands == ["test", "matrix"]
