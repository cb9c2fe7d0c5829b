"""Client builds: what a User-Agent folds to, and how the clients of one build come back."""

import re
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from exporter.events import BuildReturns, Rhythm

UNNAMED: Final = "unnamed"
"""The build of clients that sent no User-Agent, or none that names a product."""

OTHERS: Final = "others"
"""The build of all clients whose builds are beyond those that are kept."""

MOST_BUILDS: Final = 50
"""Builds told apart in one mass close."""

MOST_NAMES: Final = 1000
"""User agents whose builds are remembered, because most clients say the same."""

MOST_DELAYS: Final = 2000
"""Delays kept of each build."""

ENOUGH: Final = 10
"""Delays below which no rhythm can be told."""

AT_ONCE: Final = 1.0
"""Seconds within which a client that waits for nothing tries again."""

FIXED_SHARE: Final = 0.1
FIXED_SECONDS: Final = 0.2
"""The middle half of the delays lies within a tenth of their median, or within so many seconds: a timer, no jitter."""

_BROWSERS: Final = re.compile(r"(Edg|OPR|SamsungBrowser|Firefox|FxiOS|CriOS|HeadlessChrome|Chrome)/([0-9]{1,6})")
_SAFARI: Final = re.compile(r"Version/([0-9]{1,6})[0-9.]* (?:Mobile/\w+ )?Safari/")
_PRODUCT: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,48})(?:/[vV]?([0-9]{1,6}))?")
_NAMES: Final = {"Edg": "Edge", "OPR": "Opera", "FxiOS": "Firefox", "CriOS": "Chrome", "HeadlessChrome": "Chrome"}


def build_of(user_agent: str) -> str:
    """`product/major` of a User-Agent (RFC 9110 section 10.1.5): `acme-app/3.2 (iOS)` is `acme-app/3`.

    Browsers all begin with Mozilla and name themselves later. The result is short and plain ASCII.
    """
    if user_agent.startswith("Mozilla/"):
        browser = _BROWSERS.search(user_agent)
        if browser is not None:
            return f"{_NAMES.get(browser[1], browser[1])}/{browser[2]}"
        safari = _SAFARI.search(user_agent)
        if safari is not None:
            return f"Safari/{safari[1]}"
    product = _PRODUCT.match(user_agent)
    if product is None:
        return UNNAMED
    return f"{product[1]}/{product[2]}" if product[2] else product[1]


class Builds:
    """Names the builds of one target's clients; `listed` finds the operator's pattern that a User-Agent fits."""

    def __init__(self, listed: Callable[[str], str | None]) -> None:
        self._listed = listed
        self._names: dict[str, str] = {}

    def listed(self, user_agent: str) -> str | None:
        """The operator's pattern that a User-Agent fits, None if it fits none."""
        return self._listed(user_agent)

    def name(self, user_agent: str) -> str:
        """The operator's pattern, else `product/major`."""
        name = self._names.get(user_agent)
        if name is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            name = self._names[user_agent] = self._listed(user_agent) or build_of(user_agent)
        return name


def rhythm(delays: Sequence[float]) -> Rhythm:
    """How clients wait before they come back, from the delays (seconds) of their first attempts, in ascending order."""
    if len(delays) < ENOUGH:
        return "too_few"
    lower, median, upper = (delays[len(delays) * quarter // 4] for quarter in (1, 2, 3))
    if upper <= AT_ONCE:
        return "immediate"
    return "fixed_interval" if upper - lower <= max(median * FIXED_SHARE, FIXED_SECONDS) else "jittered"


class BuildTally:
    """The clients of one build in one mass close.

    Of many delays every second one is kept, or every fourth, and so on: they are enough for a median.
    """

    __slots__ = ("_at_once", "_delays", "_kept_of", "_seen", "lost", "returned")

    def __init__(self) -> None:
        self.lost = 0
        self.returned = 0
        self._seen = 0
        self._at_once = 0
        self._kept_of = 1
        self._delays = array("f")

    def tried(self, delay: float) -> None:
        """A client tried to come back, `delay` seconds after its close."""
        if self._seen % self._kept_of == 0:
            self._delays.append(delay)
            if len(self._delays) >= MOST_DELAYS:
                self._delays = self._delays[::2]
                self._kept_of *= 2
        self._seen += 1
        self._at_once += delay <= AT_ONCE

    def returns(self, build: str) -> BuildReturns:
        """What there is to say."""
        delays = sorted(self._delays)
        median = delays[len(delays) // 2] if delays else None
        return BuildReturns(build, self.lost, self.returned, self._seen, self._at_once, median, rhythm(delays))
