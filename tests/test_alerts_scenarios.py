"""The alert rules over simulated services: what they fire at, how soon, and what leaves them silent.

One Prometheus scrapes all services at once, each as a job of its own, named after its scenario: a rule that mixes jobs
shows. Scrapes fall off the evaluation grid, with a phase of its own for every replica.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.alerts_quiet import SILENT
from tests.alerts_scenarios import END, Scenario, T
from tests.alerts_support import ALERTS, Firings, firings
from tests.alerts_table import MARKS, table
from tests.alerts_troubles import FIRES

pytestmark = [pytest.mark.needs("promtool"), pytest.mark.timeout(240)]

FIRST: Final = (15, 1)
"""Seconds between scrapes, and a seed for everything random: the simulation that the README shows."""
SLOW: Final = (60, 1)
MATRIX: Final = tuple((interval, seed) for interval in (15, 30, 60) for seed in range(2, 6))

LONG_ENOUGH: Final = 20
"""Evaluations, 5 minutes of them: whoever is woken finds it firing."""


def simulated(
    scenarios: Mapping[str, Scenario], interval: int, seed: int, folder: Path, evaluated_every: int = 15
) -> Firings:
    """What fires in each of the scenarios."""
    series = []
    for name, scenario in scenarios.items():
        rng = random.Random(seed)
        series += scenario(rng).input_series(name, interval, END, rng)
    return firings(series, END, folder, evaluated_every)


def troubled(interval: int, seed: int, folder: Path) -> Firings:
    return simulated({name: trouble.scenario for name, trouble in FIRES.items()}, interval, seed, folder)


def judge(found: Firings, interval: int) -> list[str]:
    """What is wrong: the alerts of a trouble and no others fire, after T, in time, for long enough, and end."""
    wrong = [f"{key} is missing" for key in expected().keys() - found.keys()]
    for key, firing in found.items():
        within = expected().get(key)
        if within is None:
            wrong.append(f"{key} is no part of this trouble")
        elif not T < firing.first <= T + within + 2 * (interval - 15):
            wrong.append(f"{key} fires {firing.first - T} s after T")
        elif firing.evaluations < LONG_ENOUGH:
            wrong.append(f"{key} fires for {firing.evaluations} evaluations")
        elif firing.still:
            wrong.append(f"{key} fires for ever")
    return wrong


def expected() -> dict[tuple[str, str, str], int]:
    return {(name, *pair): within for name, trouble in FIRES.items() for pair, within in trouble.fires.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Firings:
    """What the troubles fire in the simulation that the README shows."""
    return troubled(*FIRST, tmp_path_factory.mktemp("troubles"))


def test_quiet_days_stay_silent(tmp_path: Path) -> None:
    """No alert fires at any moment of a quiet day. Evaluated every 30 s here, every 15 s in the matrix."""
    assert simulated(SILENT, *FIRST, tmp_path, 30) == {}


def test_troubles_fire(first: Firings) -> None:
    """The alerts for a trouble fire in time, for long enough to be sent, resolve, and are the only ones."""
    assert judge(first, FIRST[0]) == []


def test_the_readme_shows_what_fired(first: Firings) -> None:
    """The table of scenarios and alerts is what this simulation found."""
    begin, end = MARKS
    readme = (ALERTS / "README.md").read_text()
    shown = readme.partition(begin)[2].partition(end)[0]
    assert shown == table(first), "run `python -m tests.alerts_table`"


@pytest.mark.matrix
@pytest.mark.parametrize(("interval", "seed"), [FIRST, SLOW, *MATRIX])
def test_at_any_interval_and_phase(interval: int, seed: int, tmp_path: Path) -> None:
    """What holds for one phase of the scrapes holds for others, and at 30 and 60 s too."""
    assert simulated(SILENT, interval, seed, tmp_path) == {}
    assert judge(troubled(interval, seed, tmp_path), interval) == []
