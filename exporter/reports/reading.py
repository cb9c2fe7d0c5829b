"""Reads one JSON value as a type, and names what is wrong with it without repeating any of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from exporter.events import Rejection

T = TypeVar("T")

_OUT_OF_RANGE: Final = ("Number out of range", "Integer value out of range")
_UNKNOWN: Final = "Object contains unknown field"
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_FAULTY: Final = re.compile(r" - at `\$(?:\.\w+)*\.(\w+)`$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Which rejection goes with which field, by its name in JSON: where its value is `faulty`, where it is `missing`.

    `otherwise` is that of all other faults of fields.
    """

    faulty: Mapping[str, Rejection]
    missing: Mapping[str, Rejection]
    otherwise: Rejection

    def rejection(self, error: msgspec.ValidationError) -> Rejection:
        """Why a value was refused.

        msgspec tells by its message alone. That may quote the value, so only its beginning and its end are looked at,
        which are msgspec's own.
        """
        message = str(error)
        if message.startswith(_OUT_OF_RANGE):  # 1e999, or thousands of digits
            return "invalid_json"
        if message.startswith(_UNKNOWN):
            return "unknown_field"
        if match := _MISSING.match(message):
            return self.missing.get(match[1], self.otherwise)
        match = _FAULTY.search(message)
        return self.faulty.get(match[1], self.otherwise) if match else self.otherwise


class Reader(Generic[T]):
    """Reads well-formed JSON as `T`, or says why it is none."""

    def __init__(
        self,
        decoder: msgspec.json.Decoder[T],
        *,
        faulty: Mapping[str, Rejection],
        missing: Mapping[str, Rejection] | None = None,
        otherwise: Rejection = "invalid_event",
    ) -> None:
        self._decoder = decoder
        self._faults = Faults(faulty=faulty, missing=missing or {}, otherwise=otherwise)

    def __call__(self, text: bytes | msgspec.Raw) -> T | Rejection:
        """The value. Of malformed JSON it may say anything: the caller has to have checked that, or has to do so."""
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            return self._faults.rejection(error)
        except RecursionError:
            return "invalid_json"
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The one thing that JSON may hold and msgspec takes for malformed is half a surrogate pair.
            return "invalid_string"
