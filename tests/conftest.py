"""What every test may rely on: the `needs` marker, and an account of what missing programs kept from running."""

import importlib.metadata
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

PROGRAMS_REQUIRED: Final = os.environ.get("TESTS_REQUIRE_PROGRAMS") == "1"
SKIP_REASON: Final = re.compile(r"needs (?P<program>[\w.-]+)$")

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell may run what it starts in the background without SIGINT, which programs started here would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

NODE_PACKAGES: Final = Path(__file__).parent / "peers/node/node_modules"


def present(name: str) -> bool:
    """Whether there is such a program, Python distribution or, among the peers, Node package."""
    if shutil.which(name) is not None or (NODE_PACKAGES / name).is_dir():
        return True
    return any(importlib.metadata.distributions(name=name))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if not present(program):
                give_up = pytest.fail if PROGRAMS_REQUIRED else pytest.skip
                give_up(f"needs {program}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = (report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    missing = Counter(match["program"] for reason in reasons if (match := SKIP_REASON.search(reason)))
    if missing:
        terminalreporter.section("missing programs")
        for program, tests in sorted(missing.items()):
            terminalreporter.line(f"{program}: {tests} tests skipped")
