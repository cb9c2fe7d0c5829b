"""The image's recipe: linted by the real hadolint, unprivileged, pinned, and stopped and probed the right way."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parent.parent


class Instruction(NamedTuple):
    keyword: str
    arguments: str


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions, each on one line, without comments."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    return [Instruction(*re.split(r"\s+", line.strip(), maxsplit=1)) for line in text.splitlines() if line.strip()]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction.keyword == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def only(keyword: str) -> str:
    """The arguments of an instruction that the final stage has exactly once."""
    (arguments,) = [instruction.arguments for instruction in stages()[-1] if instruction.keyword == keyword]
    return arguments


def test_hadolint_has_no_complaint() -> None:
    """hadolint finds nothing to say, at its default severities."""
    hadolint = Path(sys.executable).parent / "hadolint"
    lint = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=30, check=False)
    assert (lint.stdout, lint.returncode) == ("", 0)


def test_the_image_runs_unprivileged() -> None:
    """A numeric user, so that Kubernetes' runAsNonRoot can be checked; the final stage runs nothing as root."""
    assert only("USER") == "65532:65532"
    assert not [instruction for instruction in stages()[-1] if instruction.keyword in {"RUN", "VOLUME"}]


def test_a_read_only_root_is_enough() -> None:
    """Python writes no bytecode at run time."""
    assert "PYTHONDONTWRITEBYTECODE=1" in only("ENV").split()


def test_the_image_is_probed_by_the_exporter_itself() -> None:
    """The health check needs no shell and no curl."""
    options, _, command = only("HEALTHCHECK").partition(" CMD ")
    assert json.loads(command) == ["websocket-exporter", "health"]
    assert {option.partition("=")[0] for option in options.split()} >= {"--interval", "--timeout"}


def test_the_exporter_gets_its_signals() -> None:
    """The exporter is process 1, in exec form, and is stopped by the signal that starts its drain."""
    assert json.loads(only("ENTRYPOINT")) == ["websocket-exporter"]
    assert only("STOPSIGNAL") == "SIGTERM"
    assert only("EXPOSE") == "11009"


def test_every_stage_has_the_python_that_the_requirements_are_pinned_for() -> None:
    """An environment built in one stage runs in the next, on the Python version that the suite proves."""
    bases = {stage[0].arguments.partition(" AS ")[0] for stage in stages()}
    pinned = re.search(r"pip-compile with Python (\S+)", (ROOT / "requirements.txt").read_text())
    assert pinned is not None
    (base,) = bases
    assert re.fullmatch(rf"python:{re.escape(pinned[1])}-slim-\w+", base)


def test_everything_installed_is_pinned_by_hash() -> None:
    """Requirements come with --require-hashes; the project itself comes without fetching anything."""
    runs = [part for step in instructions() if step.keyword == "RUN" for part in step.arguments.split("&&")]
    installs = [part.split() for part in runs if re.search(r"/pip .*\b(install|wheel)\b", part)]
    assert len(installs) == 4
    for words in installs:
        assert "--require-hashes" in words or {"--no-deps", "--no-build-isolation"} <= {*words} or "--no-index" in words


@pytest.mark.parametrize("stage", [0, 1])
def test_nothing_secret_or_mutable_is_fetched(stage: int) -> None:
    """No ADD, which unpacks and downloads; COPY only from the context or the builder."""
    assert "ADD" not in {instruction.keyword for instruction in stages()[stage]}


def test_the_build_context_holds_what_the_wheel_is_built_from() -> None:
    """.dockerignore shuts out everything except the wheel's own sources and the two requirement files."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["only-include"], "pyproject.toml", "README.md", "LICENSE"}
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        *needed,
        "requirements.txt",
        "requirements-build.txt",
    }
