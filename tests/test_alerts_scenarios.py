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
from tests.alerts_support import Test, judge
from tests.alerts_troubles import FIRES

pytestmark = [pytest.mark.needs("promtool"), pytest.mark.timeout(240)]

SCRAPED_EVERY: Final = ((15, 1), (60, 1))
"""Scrape intervals in seconds, and a seed for everything random."""
MATRIX: Final = tuple((interval, seed) for interval in (15, 30, 60) for seed in range(2, 6))


def simulated(scenarios: Mapping[str, Scenario], interval: int, seed: int) -> Test:
    """A promtool test without expectations."""
    series = []
    for name, scenario in scenarios.items():
        rng = random.Random(seed)
        series += scenario(rng).input_series(name, interval, END, rng)
    return {"interval": "1s", "input_series": series, "promql_expr_test": []}


def expect(test: Test, expr: str, at: int, *labels: str) -> None:
    """`expr` at second `at` is 1 for exactly these labels."""
    samples = [{"labels": f"{{{each}}}", "value": 1} for each in labels]
    test["promql_expr_test"].append({"expr": expr, "eval_time": f"{at}s", "exp_samples": samples})


def stay_silent(interval: int, seed: int) -> Test:
    """Nothing fires at any moment, in any job."""
    test = simulated(SILENT, interval, seed)
    expect(test, 'group by (job, alertname) (count_over_time(ALERTS{alertstate="firing"}[2h]))', END)
    return test


def fire(interval: int, seed: int) -> Test:
    """In each job the alerts of its trouble and no other fire: after T, in time, for 5 minutes, and not for ever."""
    test = simulated({name: trouble.scenario for name, trouble in FIRES.items()}, interval, seed)
    slower = 2 * (interval - 15)
    for name, trouble in FIRES.items():
        firing = f'ALERTS{{job="{name}", alertstate="firing"}}'
        fired = {pair: f'alertname="{pair[0]}", severity="{pair[1]}"' for pair in trouble.fires}
        expect(test, f"{firing} # too early", T)
        expect(test, f"group by (alertname, severity) (count_over_time({firing}[2h]))", END, *fired.values())
        for pair, within in trouble.fires.items():
            one = f'ALERTS{{job="{name}", alertstate="firing", {fired[pair]}}}'
            expect(test, f"group by (alertname, severity) ({one}) # in time", T + within + slower, fired[pair])
        evaluations = f"max by (alertname, severity) (count_over_time({firing}[2h]))"
        expect(test, f"{evaluations} >= bool 20 # long enough", END, *fired.values())
        expect(test, f"{firing} # still", END)
    return test


@pytest.mark.parametrize(("interval", "seed"), SCRAPED_EVERY)
def test_quiet_days_stay_silent(interval: int, seed: int, tmp_path: Path) -> None:
    """No alert fires at any moment of a quiet day."""
    assert judge([stay_silent(interval, seed)], tmp_path) == ""


@pytest.mark.parametrize(("interval", "seed"), SCRAPED_EVERY)
def test_troubles_fire(interval: int, seed: int, tmp_path: Path) -> None:
    """The alerts for a trouble fire in time, for long enough to be sent, resolve, and are the only ones."""
    assert judge([fire(interval, seed)], tmp_path) == ""


@pytest.mark.matrix
@pytest.mark.parametrize(("interval", "seed"), MATRIX)
def test_at_any_interval_and_phase(interval: int, seed: int, tmp_path: Path) -> None:
    """What holds for one phase of the scrapes holds for others, and at 30 s too."""
    assert judge([stay_silent(interval, seed), fire(interval, seed)], tmp_path) == ""
