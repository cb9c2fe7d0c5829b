"""Figures are measured once: what other pages quote of docs/performance.md is in the run that it shows."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs/performance.md").read_text()
RUN: Final = PAGE.partition("```\nmachine:")[2].partition("```")[0]
QUOTED: Final = re.compile(r"(\d+\.\d+)(?:x| KiB for each idle| MiB for 1,000)")


@pytest.mark.parametrize("page", ["README.md", "docs/tap.md", "docs/performance.md"])
def test_quoted_ratios_are_those_of_the_run(page: str) -> None:
    """Each "1.28x" of a page stands in the tables of the documented run."""
    text = (ROOT / page).read_text().replace(RUN, "")
    measured = set(re.findall(r"\d+\.\d+", RUN))
    assert set(QUOTED.findall(text)) <= measured


def test_the_documented_run_is_complete_and_reached_what_it_must() -> None:
    """It has every bound that a full run prints, and the page does not claim more than the run shows."""
    verdicts = re.findall(r"  (reached|NOT REACHED)$", RUN, re.MULTILINE)
    assert len(verdicts) >= 18
    if "NOT REACHED" in verdicts:
        assert "Everything that must be reached was reached" not in PAGE
