"""Client builds: their names, and their rhythm."""

import pytest

from exporter.events import BuildReturns
from exporter.insight.builds import MOST_DELAYS, MOST_NAMES, Builds, BuildTally, build_of, rhythm

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.8078.73 Safari/537.36"


@pytest.mark.parametrize(
    ("user_agent", "build"),
    [
        ("acme-app/3.2.1 (iOS 19)", "acme-app/3"),
        ("acme-app/v3", "acme-app/3"),
        ("okhttp/5.0.0-alpha.14", "okhttp/5"),
        ("Python/3.11 websockets/17.4", "Python/3"),
        ("acme-app", "acme-app"),
        ("acme app/3", "acme"),
        ("Dart/3.9 (dart:io)", "Dart/3"),
        (CHROME, "Chrome/156"),
        (CHROME + " Edg/156.0.0.0", "Chrome/156"),
        (CHROME.replace("Chrome", "HeadlessChrome"), "Chrome/156"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0", "Firefox/153"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/19.0 Mobile/15E148 Safari/604.1",
            "Safari/19",
        ),
        ("Mozilla/5.0 (compatible)", "Mozilla/5"),
        ("", "unnamed"),
        ("<script>alert(1)</script>", "unnamed"),
        ("\u202eevil/1", "unnamed"),
        ("a" * 1000 + "/1", "a" * 48),
        ("app/" + "9" * 1000, "app/999999"),
    ],
)
def test_a_user_agent_folds_to_product_and_major(user_agent: str, build: str) -> None:
    """Short, plain ASCII, and the same for all versions with one major number; browsers by their own name."""
    assert build_of(user_agent) == build


def test_the_operator_s_pattern_comes_first() -> None:
    """A listed build is named by its pattern, all others fold."""
    builds = Builds(lambda user_agent: "acme-app/*" if user_agent.startswith("acme-app/") else None)
    assert builds.name("acme-app/3.2") == "acme-app/*"
    assert builds.name("okhttp/5.0") == "okhttp/5"
    assert builds.listed("okhttp/5.0") is None


def test_names_are_remembered_within_a_bound() -> None:
    """A client that says something new each time makes nothing grow."""
    asked: list[str] = []

    def listed(user_agent: str) -> None:
        asked.append(user_agent)

    builds = Builds(listed)
    for number in range(MOST_NAMES + 10):
        assert builds.name(f"app/{number}") == f"app/{number}"
    assert builds.name(f"app/{MOST_NAMES + 9}") == f"app/{MOST_NAMES + 9}"
    assert len(asked) == MOST_NAMES + 10
    assert builds.name("app/0") == "app/0"
    assert len(asked) == MOST_NAMES + 11


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        ([0.01] * 9, "too_few"),
        ([0.01] * 10, "immediate"),
        ([0.5] * 8 + [0.99, 1.0], "immediate"),
        ([0.5] * 7 + [1.01] * 3, "jittered"),
        ([3.0 + 0.01 * number for number in range(20)], "fixed_interval"),
        ([15.0 + 0.1 * number for number in range(20)], "fixed_interval"),
        ([14.0 + 0.2 * number for number in range(20)], "jittered"),
        ([0.25 * number for number in range(20)], "jittered"),
        ([3.0] * 16 + [600.0] * 4, "fixed_interval"),
    ],
)
def test_rhythm(delays: list[float], expected: str) -> None:
    """Of ten delays or more: three quarters within a second are immediate; a narrow middle half is a timer."""
    assert rhythm(delays) == expected


def test_what_is_said_of_one_build() -> None:
    """How many were lost and returned, and of the known delays the median and how many were within a second."""
    tally = BuildTally()
    tally.lost, tally.returned = 30, 12
    for delay in (3.0, 0.5, 1.0, 2.0, 9.0):
        tally.tried(delay)
    assert tally.returns("acme-app/3") == BuildReturns("acme-app/3", 30, 12, 5, 2, 2.0, "too_few")
    assert BuildTally().returns("x") == BuildReturns("x", 0, 0, 0, 0, None, "too_few")


def test_of_many_delays_enough_are_kept() -> None:
    """100,000 delays spread evenly over 5 s keep their median, whichever order they come in; the memory is bounded."""
    tally = BuildTally()
    for number in range(100_000):
        tally.tried(number * 7919 % 100_000 / 20_000)
    said = tally.returns("x")
    assert said.delays == 100_000
    assert said.at_once == 20_001
    assert said.median_delay == pytest.approx(2.5, abs=0.1)
    assert said.rhythm == "jittered"
    assert len(tally._delays) < MOST_DELAYS
