"""A YAML file becomes plain mappings, lists, text, integers and booleans, or sentences about what is wrong with it."""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from exporter.config.values import quoted

MAX_BYTES: Final = 1 << 20
"""Larger files are refused: reading them would take a minute, and a mistaken path such as /dev/zero has no end."""

_TEXT: Final = "tag:yaml.org,2002:str"


class DocumentError(Exception):
    """The file cannot be read at all; the sentence names it."""


def read_text(path: Path) -> str:
    """The file's text. Raises DocumentError with a sentence that names the file."""
    shown = str(path) if str(path).isprintable() else quoted(str(path))
    try:
        if path.exists() and not path.is_file():
            # A pipe, say, would be read but once, and a reload would wait for it for ever.
            raise DocumentError(f"cannot read {shown}: {'is a directory' if path.is_dir() else 'not a regular file'}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DocumentError(f"cannot read {shown}: no such file") from None
    except OSError as error:
        raise DocumentError(f"cannot read {shown}: {(error.strerror or 'unknown error').lower()}") from None
    if len(data) > MAX_BYTES:
        raise DocumentError(f"cannot read {shown}: larger than 1 MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"cannot read {shown}: line {line} is not UTF-8") from None


def parse(text: str) -> tuple[object, list[str]]:
    """The document's data (None if it cannot be parsed), and one sentence for each fault of its syntax."""
    loader = None
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        return None, [*_duplicates(loader), _syntax(error)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        return None, [f"line {line}, column {column}: character U+{ord(text[error.position]):04X} is not allowed"]
    except RecursionError:
        return None, ["nested too deeply"]
    return data, loader.duplicates


def _duplicates(loader: "_Loader | None") -> list[str]:
    return loader.duplicates if loader else []


def _syntax(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = error.problem or error.context or "not YAML"
    sentence = f"{error.context}, {problem}" if problem.startswith("but ") else problem
    return where + " ".join(sentence.split())


class _Loader(yaml.SafeLoader):
    """YAML as its version 1.2 reads it: yes, 010, 1:30, <<, dates and keys of all kinds are text. No tags.

    Keys that are given twice are collected in `duplicates`; YAML 1.2 section 3.2.1.1 forbids them, PyYAML takes them.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's way; an empty one leaves YAML 1.1 out)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise yaml.MarkedYAMLError(problem=f"tag {quoted(tag)} is not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for position, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            node.value[position] = (yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark), value)
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if key.value in first:
                place = f"line {line}, column {column}"
                self.duplicates.append(
                    f"{place}: key {quoted(key.value)} is given twice; first in line {first[key.value]}"
                )
            first.setdefault(key.value, line)
        return node


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,18})", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))
