"""What a client would rather have: its Accept and Accept-Encoding fields, by RFC 9110 sections 12.5.1 and 12.5.3."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True, slots=True)
class Choice:
    """One member of the list: a lower-case media range or coding, its parameters, and its weight from 0 to 1."""

    value: str
    parameters: Mapping[str, str]
    weight: float


def choices(field: str) -> list[Choice]:
    """The members of `field`, the most wanted first; those of weight 0 are refusals. Unreadable ones are left out."""
    found = [choice for member in field.split(",") if (choice := _choice(member)) is not None]
    return sorted(found, key=lambda choice: -choice.weight)


def accepts_coding(field: str, coding: str) -> bool:
    """Whether a client that sent this Accept-Encoding takes `coding`. The absence of the field means no."""
    weights = {choice.value: choice.weight for choice in choices(field)}
    return weights.get(coding, weights.get("*", 0.0)) > 0


def _choice(member: str) -> Choice | None:
    value, *rest = (part.strip() for part in member.split(";"))
    pairs = (part.partition("=") for part in rest)
    parameters = {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs}
    weight = parameters.pop("q", "1")
    return Choice(value.lower(), parameters, float(weight)) if value and _WEIGHT.fullmatch(weight) else None
