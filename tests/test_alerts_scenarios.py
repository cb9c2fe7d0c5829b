"""The alert rules over simulated services: what they fire at, how soon, and what leaves them silent.

Scrapes fall off the evaluation grid, with a phase of its own for every replica.
"""

import random
from pathlib import Path
from typing import Final

import pytest

from tests.alerts_scenarios import END, FIRES, SILENT, STORM, Scenario, T
from tests.alerts_support import JOB, TARGET, Test, judge

pytestmark = [pytest.mark.needs("promtool"), pytest.mark.timeout(240)]

SCRAPED_EVERY: Final = ((15, 1), (60, 1))
"""Scrape intervals in seconds, and a seed for everything random."""
MATRIX: Final = tuple((interval, seed) for interval in (15, 30, 60) for seed in range(2, 6))

EVER_FIRED: Final = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[2h]))'


def simulated(scenario: Scenario, interval: int, seed: int) -> Test:
    """A promtool test without expectations."""
    rng = random.Random(seed)
    return {"interval": "1s", "input_series": scenario(rng).input_series(interval, END, rng), "promql_expr_test": []}


def expect(test: Test, note: str, expr: str, at: int, *samples: tuple[str, float]) -> None:
    """`expr` at second `at` gives exactly these (labels, value); `note` shows up when it does not."""
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    test["promql_expr_test"].append({"expr": f"{expr} # {note}", "eval_time": f"{at}s", "exp_samples": expected})


def stays_silent(name: str, interval: int, seed: int) -> Test:
    """Nothing fires at any moment."""
    test = simulated(SILENT[name], interval, seed)
    expect(test, f"{name}, every {interval} s, seed {seed}", EVER_FIRED, END)
    return test


def fires(name: str, interval: int, seed: int) -> Test:
    """One alert fires, after T and in time, for 5 minutes or longer, and not for ever."""
    scenario, alert, deadline = FIRES[name]
    test, note = simulated(scenario, interval, seed), f"{name}, every {interval} s, seed {seed}"
    firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    one = (f'{{alertname="{alert}"}}', 1.0)
    severity = "critical" if alert == STORM else "warning"
    whole = f'{{alertname="{alert}",job="{JOB}",target="{TARGET}",source="tap",severity="{severity}"}}'
    slower = 2 * (interval - 15)
    expect(test, f"{note}: before", f"count_over_time({firing}[2h])", T)
    expect(test, f"{note}: in time", f"count by (alertname) ({firing})", T + deadline + slower, one)
    expect(test, f"{note}: alone", EVER_FIRED, END, one)
    evaluations = f"sum without (alertstate) (count_over_time({firing}[2h])) >= bool 20"
    expect(test, f"{note}: long enough", evaluations, END, (whole, 1.0))
    expect(test, f"{note}: over", firing, END)
    return test


@pytest.mark.parametrize("name", SILENT)
def test_stays_silent(name: str, tmp_path: Path) -> None:
    """No alert fires at any moment of a quiet day."""
    assert judge([stays_silent(name, *scraped) for scraped in SCRAPED_EVERY], tmp_path) == ""


@pytest.mark.parametrize("name", FIRES)
def test_fires(name: str, tmp_path: Path) -> None:
    """The one alert for this trouble fires in time, for long enough to be sent, and resolves."""
    assert judge([fires(name, *scraped) for scraped in SCRAPED_EVERY], tmp_path) == ""


@pytest.mark.matrix
@pytest.mark.parametrize("name", [*SILENT, *FIRES])
def test_at_any_interval_and_phase(name: str, tmp_path: Path) -> None:
    """What holds for one phase of the scrapes holds for others, and at 30 s too."""
    expected = stays_silent if name in SILENT else fires
    assert judge([expected(name, *scraped) for scraped in MATRIX], tmp_path) == ""
