"""The floors of the house: a room imports only from lower floors, and the ground floor stays pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest

from exporter.events import Source

ROOT: Final = Path(__file__).parent.parent

FLOORS: Final[tuple[frozenset[str], ...]] = tuple(
    frozenset(rooms.split())
    for rooms in (
        "exporter",  # the bare package: its version, nothing else
        "exporter.closecodes exporter.events",
        "exporter.wire exporter.insight exporter.metrics.catalogue exporter.config exporter.assets",
        "exporter.metrics exporter.storage exporter.reports exporter.log exporter.listening exporter.status",
        "exporter.targets",
        "exporter.sources",
        "exporter.web",
        "exporter.webhook",
        "exporter.app",
        "exporter.codes exporter.demo",
        "exporter.cli",
        "exporter.__main__",
    )
)
"""The rooms of each floor, lowest first; a module belongs to the longest name it starts with."""

PURE: Final = frozenset({"exporter.closecodes", "exporter.events", "exporter.wire", "exporter.insight"})
"""Rooms that do no I/O, read no clock and need nothing but the standard library."""

SOURCES: Final = frozenset(f"exporter.sources.{name}" for name in get_args(Source))
"""Modules or packages that see WebSockets; what else is in their room serves them."""

# fmt: off
IMPURE: Final = frozenset({
    "asyncio", "concurrent", "datetime", "http", "importlib", "io", "logging", "multiprocessing", "os",
    "pathlib", "random", "secrets", "select", "selectors", "signal", "socket", "socketserver", "ssl",
    "subprocess", "sys", "threading", "time", "urllib", "uuid",
})
# fmt: on


def level(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def room_of(module: str) -> str:
    """The room that a module of the house belongs to; ValueError when it has none."""
    name = module
    while name != "exporter" or module == "exporter":
        if any(name in rooms for rooms in FLOORS):
            return name
        name = name.rpartition(".")[0]
    raise ValueError(f"{module} is on no floor: name its room in FLOORS")


def imports(tree: ast.Module, package: str, modules: frozenset[str]) -> Iterator[str]:
    """Every module that `tree`, whose package is `package`, imports anywhere, under its absolute name.

    `from a import b` is the module `a.b` where the house has one, else `a`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            start = parents[: len(parents) + 1 - node.level] if node.level else []
            origin = ".".join([*start, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                member = f"{origin}.{alias.name}"
                yield member if member in modules else origin


def first_three(module: str) -> str:
    return ".".join(module.split(".")[:3])


def fault(importer: str, imported: str) -> str | None:
    """What is wrong with one import, or None."""
    room = room_of(importer)
    name = imported.partition(".")[0]
    if name != "exporter":
        if room in PURE and (name in IMPURE or name not in sys.stdlib_module_names):
            return f"{importer} imports {imported}: {room} is pure"
        return None
    other = room_of(imported)
    if other == room and first_three(imported) in SOURCES - {first_three(importer)}:
        return f"{importer} imports {imported}: sources never import each other"
    if other != room and level(other) >= level(room):
        return f"{importer} imports {imported}: {other} is not below {room}"
    return None


def faults(sources: dict[str, str], packages: frozenset[str]) -> list[str]:
    """Every import of the modules in `sources` (name -> code) that breaks a rule; `packages` have an `__init__`."""
    modules = frozenset(sources) | packages
    found = []
    for module, code in sources.items():
        package = module if module in packages else module.rpartition(".")[0]
        for imported in imports(ast.parse(code), package, modules):
            if problem := fault(module, imported):
                found.append(problem)
    return found


def house() -> tuple[dict[str, str], frozenset[str]]:
    sources, packages = {}, set()
    for path in sorted((ROOT / "exporter").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
            packages.add(".".join(parts))
        sources[".".join(parts)] = path.read_text()
    return sources, frozenset(packages)


def test_rooms_import_only_from_lower_floors() -> None:
    """No module of the exporter imports from its own floor's other rooms, from above, or what its room bans."""
    sources, packages = house()
    assert "exporter.events" in sources
    assert faults(sources, packages) == []


PACKAGES: Final = frozenset(
    {"exporter", "exporter.wire", "exporter.insight", "exporter.metrics", "exporter.sources", "exporter.web"}
)


@pytest.mark.parametrize(
    ("module", "code", "problem"),
    [
        ("exporter.events", "import exporter.closecodes", "exporter.closecodes is not below exporter.events"),
        ("exporter.closecodes", "from .wire import frames", "exporter.wire is not below exporter.closecodes"),
        ("exporter.wire.frames", "from exporter import config", "exporter.config is not below exporter.wire"),
        ("exporter.wire.frames", "from .. import insight", "exporter.insight is not below exporter.wire"),
        ("exporter.wire", "from ..metrics import recorder", "exporter.metrics is not below exporter.wire"),
        ("exporter.wire.frames", "import asyncio", "exporter.wire is pure"),
        ("exporter.wire.frames", "def f():\n    from time import monotonic", "exporter.wire is pure"),
        ("exporter.insight.backoff", "import random as r", "exporter.insight is pure"),
        ("exporter.closecodes", "import msgspec", "exporter.closecodes is pure"),
        ("exporter.events", "if True:\n    import os.path", "exporter.events is pure"),
        ("exporter.metrics.catalogue", "from . import recorder", "exporter.metrics is not below"),
        ("exporter.storage", "from .metrics.recorder import Recorder", "exporter.metrics is not below"),
        ("exporter.sources.tap", "from . import probe", "sources never import each other"),
        ("exporter.sources.tap", "import exporter.sources.probe", "sources never import each other"),
        ("exporter.sources.tap", "from .probe import Probe", "sources never import each other"),
        ("exporter.sources.relay", "from .tap import Tap", "sources never import each other"),
        ("exporter.sources.tap.relay", "from ..probe import Probe", "sources never import each other"),
        ("exporter.sources.tap", "from exporter.web import metrics", "exporter.web is not below exporter.sources"),
        ("exporter.web.metrics", "import exporter.app as app", "exporter.app is not below exporter.web"),
        ("exporter.app", "from . import cli", "exporter.cli is not below exporter.app"),
        ("exporter", "from . import events", "exporter.events is not below exporter"),
    ],
)
def test_a_forbidden_import_is_found(module: str, code: str, problem: str) -> None:
    """Each way of writing an import upwards, sideways or out of a pure room is found, wherever it stands."""
    others = {
        "cli",
        "config",
        "events",
        "insight.backoff",
        "metrics.recorder",
        "sources.probe",
        "web.metrics",
        "wire.frames",
    }
    sources = {f"exporter.{name}": "" for name in others} | {module: code}
    (found,) = faults(sources, PACKAGES)
    assert found.startswith(f"{module} imports ")
    assert problem in found


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("exporter.wire.frames", "from dataclasses import dataclass\nfrom .. import closecodes, events"),
        ("exporter.wire.connection", "from . import frames\nfrom .frames import FrameMeter"),
        ("exporter.wire.frames", "# import asyncio\ntext = 'import socket'"),
        ("exporter.metrics.recorder", "import time\nfrom . import catalogue\nfrom ..insight import backoff"),
        ("exporter.sources.tap", "import asyncio\nfrom ..wire.connection import ConnectionObserver"),
        ("exporter.sources.tap", "from .relay import Relay\nfrom .tap.limits import Limit"),
        ("exporter.web.pages", "from exporter import __version__"),
        ("exporter.cli", "import exporter.demo, exporter.app, asyncio, rich"),
    ],
)
def test_an_import_from_below_is_no_fault(module: str, code: str) -> None:
    """Imports from lower floors, within a room, and from anywhere into a room that is not pure pass."""
    others = {
        "closecodes",
        "events",
        "demo",
        "app",
        "wire.frames",
        "wire.connection",
        "insight.backoff",
        "metrics.catalogue",
    }
    sources = {f"exporter.{name}": "" for name in others} | {module: code}
    assert faults(sources, PACKAGES) == []


def test_a_module_without_a_floor_is_refused() -> None:
    """A new room has to be given a floor before it can import or be imported."""
    with pytest.raises(ValueError, match=r"exporter\.attic is on no floor"):
        faults({"exporter.attic": "import exporter.events"}, PACKAGES)
