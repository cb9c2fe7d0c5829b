"""The close-code knowledge as plain text for a terminal: a list of all, one code in full, two side by side.

Pure: what `websocket-exporter codes` prints, without colours, wrapped to `width` columns (at least `MIN_WIDTH`).
"""

import textwrap
from collections.abc import Iterable
from itertools import zip_longest
from typing import Final

from exporter import closecodes
from exporter.closecodes import CloseCode
from exporter.metrics import catalogue

MIN_WIDTH: Final = 60
"""Narrower terminals get text of this width."""

_COMMAND: Final = "websocket-exporter codes"
_INDENT: Final = "  "
_BAR: Final = " | "
_LEAST_COLUMN: Final = 30
_LISTS_NOTHING: Final = closecodes.Vocabulary(frozenset(), frozenset())


class UnknownCode(LookupError):
    """A number that no Close frame can carry; its text is the sentence to show."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code} is no close code: a Close frame carries a number from 0 to 65535")


def listing(width: int = 100) -> str:
    """Every registered code and every range around them in ascending order, one row each."""
    width = max(width, MIN_WIDTH)
    entries = closecodes.ENTRIES
    rows = [("code", "name", "class", "meaning")]
    rows += [(entry.span, entry.name, entry.close_class, _first_sentence(entry.meaning)) for entry in entries]
    return _lines(
        *_table(rows, width),
        "",
        *_wrap(f"One code in full: {_COMMAND} 1009", width),
        *_wrap(f"Two side by side: {_COMMAND} 1001 1009", width),
    )


def describe(code: int, width: int = 100) -> str:
    """Everything known about one code: meaning, when it is seen, remedies, behaviour, and where it is counted.

    A code without an entry of its own is described by its range. Raises UnknownCode outside 0-65535.
    """
    entry, width = _entry(code), max(width, MIN_WIDTH)
    return _lines(
        *_heading(_title(entry)),
        *_section("What it means", _wrap(entry.meaning, width, _INDENT)),
        *_section("When you see it", _wrap(entry.seen_when, width, _INDENT)),
        *_section("How to fix it", _wrap(entry.fix, width, _INDENT)),
        *(_section("Which remedy when", _remedies(code, width)) if code in closecodes.REMEDIES else ()),
        *_section("How it behaves", _answers(code, width)),
        *_section("Where it is counted", [*_counted(entry, width), "", *_query(entry.code)]),
        *_see_also(code),
    )


def compare(left: int, right: int, width: int = 100) -> str:
    """Two codes side by side in two columns: the key differences, then which remedy to use when.

    Raises UnknownCode for a code outside 0-65535.
    """
    if left == right:
        return describe(left, width)
    one, other, width = _entry(left), _entry(right), max(width, MIN_WIDTH)
    contrast = closecodes.CONTRASTS.get((min(left, right), max(left, right)))
    rows = [
        ("What it means", one.meaning, other.meaning),
        ("Class", one.close_class, other.close_class),
        *closecodes.conduct_rows(left, right),
        ("When you see it", one.seen_when, other.seen_when),
    ]
    return _lines(
        *_heading(f"{left} and {right} side by side"),
        *(_section("In short", _wrap(contrast, width, _INDENT)) if contrast else ()),
        *_section("Key differences", _columns_of(_title(one), _title(other), width)),
        *(line for question, a, b in rows for line in _section(question, _side_by_side(a, b, width))),
        *_section(f"Which remedy when: {_title(one)}", _remedies(left, width)),
        *_section(f"Which remedy when: {_title(other)}", _remedies(right, width)),
    )


def _entry(code: int) -> CloseCode:
    try:
        return closecodes.lookup(code)
    except LookupError:
        raise UnknownCode(code) from None


def _title(entry: CloseCode) -> str:
    found = closecodes.range_of(entry.code)
    title = f"{entry.code} {entry.name}"
    return title if found is None or len(found.codes) == 1 else f"{title} ({found.span})"


def _answers(code: int, width: int) -> list[str]:
    answers = closecodes.conduct(code).answers()
    column = max(len(question) for question, _ in answers) + len(_INDENT)
    return [
        line
        for question, answer in answers
        for line in _wrap(answer, width, f"{_INDENT}{question:<{column}}", " " * (column + len(_INDENT)))
    ]


def _remedies(code: int, width: int) -> list[str]:
    return [
        line
        for remedy in closecodes.remedies(code)
        for line in (
            *_wrap(f"{remedy.when}:", width, _INDENT),
            *_wrap(remedy.do, width, _INDENT * 3),
        )
    ]


def _label(code: int) -> str:
    """The label value that stands for this code; for 1005, 1006 and 1015 their meaning, not their number on a wire."""
    return str(code) if code in closecodes.LOCAL_ONLY else _LISTS_NOTHING.wire_label(code)


def _counted(entry: CloseCode, width: int) -> list[str]:
    label = _label(entry.code)
    lines = [f'{_INDENT}{catalogue.CLOSES.name}{{code="{label}",class="{entry.close_class}"}}']
    if label in (closecodes.LIBRARIES, closecodes.PRIVATE):
        note = f'As code="{entry.code}" once the target\'s codes or going_away_codes list {entry.code}.'
        lines += _wrap(note, width, _INDENT)
    elif label in (closecodes.INVALID, closecodes.RESERVED):
        lines += _wrap("Together with all other numbers of its kind; the log line of the close has it.", width, _INDENT)
    return lines


def _query(code: int) -> tuple[str, ...]:
    """The closes of the last 15 minutes, over several lines that can be pasted as they are."""
    return (
        f"{_INDENT}sum by (target, source, initiator) (",
        f'{_INDENT * 2}increase({catalogue.CLOSES.name}{{code="{_label(code)}"}}[15m])',
        f"{_INDENT})",
    )


def _see_also(code: int) -> list[str]:
    return [f"Side by side: {_COMMAND} {a} {b}" for a, b in closecodes.CONTRASTS if code in (a, b)]


def _first_sentence(meaning: str) -> str:
    return meaning.partition(". ")[0].rstrip(".")


def _lines(*lines: str) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def _heading(title: str) -> tuple[str, ...]:
    return title, "=" * len(title), ""


def _section(title: str, body: Iterable[str]) -> tuple[str, ...]:
    return title, *body, ""


def _wrap(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """`text` in lines of at most `width`, indented by `first` and from the second line on by `rest`."""
    rest = first if rest is None else rest
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _columns_of(left: str, right: str, width: int) -> list[str]:
    """The heads of the two columns, and a rule below them."""
    heads = _side_by_side(left, right, width)
    column = heads[0].index(_BAR)
    return [*heads, f"{_INDENT}{'-' * (column - len(_INDENT))}-+{'-' * (column - len(_INDENT) + 1)}"]


def _side_by_side(left: str, right: str, width: int) -> list[str]:
    column = (width - len(_INDENT) - len(_BAR)) // 2
    pairs = zip_longest(_wrap(left, column), _wrap(right, column), fillvalue="")
    return [f"{_INDENT}{one:<{column}}{_BAR}{other}".rstrip() for one, other in pairs]


def _table(rows: list[tuple[str, str, str, str]], width: int) -> list[str]:
    """Rows of four columns; the last is wrapped into what the others leave of `width`, or below if that is little."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:3]]
    margin = sum(widths) + len(widths) * len(_INDENT)
    lines: list[str] = []
    for *cells, meaning in rows:
        start = "".join(f"{cell:<{size}}{_INDENT}" for cell, size in zip(cells, widths, strict=True))
        if width - margin >= _LEAST_COLUMN:
            lines += _wrap(meaning, width, start, " " * margin)
        else:
            lines += [start.rstrip(), *_wrap(meaning, width, _INDENT * 3)]
    return lines
