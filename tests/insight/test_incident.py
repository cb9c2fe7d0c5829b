"""What is said of a mass close: when its clients returned, and how it went."""

from dataclasses import replace

import pytest

from exporter.events import WITHINS, MassClose, Origin
from exporter.insight.incident import MassCloseRules, verdict, within

CHAT = Origin("tap", "chat")
RULES = MassCloseRules()


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (0.0, "1s"),
        (1.0, "1s"),
        (1.01, "5s"),
        (5.0, "5s"),
        (30.0, "30s"),
        (30.1, "120s"),
        (120.0, "120s"),
        (121.0, "later"),
    ],
)
def test_when_a_client_returned(seconds: float, label: str) -> None:
    """Each time in one label value; a bound belongs to the shorter one."""
    assert within(seconds) == label


def judged(**facts: object) -> str:
    """The verdict on a mass close of 100 that all returned calmly, but for these facts."""
    calm = MassClose(
        origin=CHAT,
        verdict="healthy",
        lasted=20.0,
        lost=100,
        lost_by={},
        back=100,
        tried=100,
        returned=dict.fromkeys(WITHINS, 0) | {"5s": 100},
        busiest_second=20,
        answered=100,
        rejected=0,
        gap=1.0,
        draining=False,
    )
    returns = facts.pop("returns", None)
    if returns is not None:
        facts["returned"] = {"5s": returns}
    return verdict(replace(calm, **facts), RULES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "healthy"),
        ({"draining": True}, "moved"),
        ({"returns": 19, "tried": 19}, "moved"),
        ({"returns": 0, "tried": 19, "gap": None}, "moved"),
        ({"returns": 20, "tried": 20}, "unrecovered"),
        ({"returns": 19, "tried": 20}, "unrecovered"),
        ({"returns": 0, "tried": 100, "gap": None}, "unrecovered"),
        ({"returns": 79}, "unrecovered"),
        ({"returns": 80}, "healthy"),
        ({"lost": 20, "returns": 0, "tried": 20, "gap": None}, "unrecovered"),
        ({"lost": 49, "returns": 30, "tried": 30}, "too_few"),
        ({"lost": 50, "returns": 39, "tried": 39}, "unrecovered"),
        ({"lost": 50, "returns": 49}, "too_few"),
        ({"lost": 50, "returns": 50}, "healthy"),
        ({"answered": 200}, "healthy"),
        ({"answered": 201}, "amplified"),
        ({"answered": 125, "rejected": 25}, "healthy"),
        ({"answered": 125, "rejected": 26}, "amplified"),
        ({"busiest_second": 49}, "healthy"),
        ({"busiest_second": 50}, "healthy"),
        ({"busiest_second": 51}, "herd"),
        ({"busiest_second": 51, "answered": 201}, "amplified"),
        ({"back": 80}, "healthy"),
        ({"back": 79}, "unrecovered"),
        ({"back": 0, "busiest_second": 51}, "unrecovered"),
        ({"back": 0, "answered": 201}, "amplified"),
    ],
)
def test_verdicts_and_their_boundaries(facts: dict[str, object], expected: str) -> None:
    """The first that applies, each at its boundary."""
    assert judged(**facts) == expected
