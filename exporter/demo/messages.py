"""Message texts of realistic sizes: most are short, a few are a hundred times as long."""

import math
import random
from typing import Final

_SPREAD: Final = 1.3
_LEAST: Final = 8
_PHRASE: Final = "the quick brown fox jumps over the lazy dog, "


def message(chance: random.Random, *, typical: int, most: int) -> str:
    """A text of `typical` bytes in the median, log-normally spread, `most` bytes at most."""
    return text(min(most, max(_LEAST, int(chance.lognormvariate(math.log(typical), _SPREAD)))))


def text(size: int) -> str:
    """A text of `size` bytes in UTF-8."""
    return (_PHRASE * (size // len(_PHRASE) + 1))[:size]
