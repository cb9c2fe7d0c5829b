"""Numbers as people read them."""

from typing import Final

from exporter.events import Direction, Initiator, Origin, Side

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def place(origin: Origin, direction: Direction | None = None) -> str:
    """Where something was seen; the tap is what is meant unless another source is named."""
    target = origin.target if origin.source == "tap" else f"{origin.target} ({origin.source})"
    return target if direction is None else f"{target}, {direction.replace('_', ' ')}"


def receiver(direction: Direction) -> Side:
    """Whose limit applies to messages of this direction."""
    return "server" if direction == "client_to_server" else "client"


def by(initiator: Initiator) -> str:
    """Who closed, as the end of a sentence."""
    return "" if initiator == "unknown" else f" by the {initiator}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """ "1 message", "37 messages"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def exact(size: int) -> str:
    """A size to the byte."""
    return counted(size, "byte")


def size(number: int) -> str:
    """A size with one decimal at most: "300 bytes", "1.8 MiB"."""
    value, unit = _scaled(number)
    return exact(number) if unit == "bytes" else f"{value} {unit}"


def exact_and_rounded(number: int) -> str:
    """A size to compare others with, and as people write it: "1,048,576 bytes (1 MiB)"."""
    rounded = size(number)
    return rounded if rounded == exact(number) else f"{exact(number)} ({rounded})"


def span(smallest: int, largest: int) -> str:
    """A range of sizes: "between 1.1 and 1.8 MiB", or "of 1.1 MiB" where they look the same."""
    low, high = _scaled(smallest), _scaled(largest)
    if low == high:
        return f"of {exact(largest)}" if smallest == largest else f"of about {size(largest)}"
    return f"between {low[0] if low[1] == high[1] else size(smallest)} and {size(largest)}"


def share(part: float, whole: float) -> str:
    """A percentage; what is not all never reads as all, nor something as nothing."""
    percent = 100 * part / whole if whole else 0.0
    rounded = round(percent)
    if rounded == 100 and part < whole:
        return "over 99 %"
    if rounded == 0 and part > 0:
        return "under 1 %"
    return f"{rounded} %"


def lasting(seconds: float) -> str:
    """A duration in the unit that fits: "0.4 s", "2.1 s", "15 s", "4 min", "2 h", "3 days"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def listed(words: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _scaled(number: int) -> tuple[str, str]:
    value, power = float(number), 0
    while value >= 1023.95 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:,.1f}".removesuffix(".0"), _UNITS[power]
