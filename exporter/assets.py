"""Finds the dashboards, alert rules and example configurations, in the wheel or in the checkout.

Both lay them out alike: in a checkout they stand beside `exporter/`, in a wheel below `exporter/_assets/`.
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

Kind = Literal["dashboards", "alerts", "deploy"]

PATHS: Final[Mapping[Kind, str]] = {"dashboards": "dashboards/grafana", "alerts": "alerts", "deploy": "deploy"}
"""Where each kind stands below the base, in the wheel and in the checkout."""

PAGES: Final = ("dashboards/README.md",)
"""What is shipped beside them: how to use the dashboards. Its folder has code, too, which only a checkout has."""

LEFT_OUT: Final = frozenset({"alerts/tests", "deploy/compose/.env"})
"""What only a checkout has: the rules' own tests, and where compose finds the sources to build an image from."""

DOCUMENTATION: Final = "https://github.com/websocket-exporter/websocket-exporter/blob/main"
"""Where whatever is not shipped can be read."""

_PACKAGE: Final = Path(__file__).resolve().parent

_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)(?P<path>[^)#\s]+)")
"""The path of a relative link in Markdown."""

_MENTION: Final = re.compile(r"(?<![\w/.\[])docs/[\w-]+\.md")
"""A page of the documentation in a text or a comment, other than as the text or the address of a link."""


def _base() -> Path:
    packaged = _PACKAGE / "_assets"
    return packaged if packaged.is_dir() else _PACKAGE.parent


def root(kind: Kind) -> Path:
    """The folder of one kind of assets.

    Raises FileNotFoundError when this installation carries none.
    """
    folder = _base() / PATHS[kind]
    if not folder.is_dir():
        raise FileNotFoundError(f"this installation carries no {kind}: {folder} is not a folder")
    return folder


def _files(folder: Path, base: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")) or path.relative_to(base).as_posix() in LEFT_OUT:
            continue
        if path.is_dir():
            yield from _files(path, base)
        else:
            yield path


def standalone(name: str, text: str, shipped: Collection[str]) -> str:
    """The `text` of the asset called `name`, with whatever it leads to beyond the `shipped` names as a full address.

    In Markdown that is every relative link; elsewhere, and there too, every page of docs/ that is mentioned.
    """

    def absolute(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link["path"]))
        there = any(each == target or each.startswith(f"{target}/") for each in shipped)
        return link["path"] if there else f"{DOCUMENTATION}/{target}"

    if name.endswith(".md"):
        text = _LINK.sub(absolute, text)
    return _MENTION.sub(rf"{DOCUMENTATION}/\g<0>", text)


def copy_to(out: Path) -> list[Path]:
    """Write every asset below `out`, laid out as in the checkout, over what stands there; return the files written.

    Relative references between them (a Prometheus configuration naming its rule files) hold in `out` too; what leads
    elsewhere gets its full address. Raises OSError (FileNotFoundError when this installation carries no assets, before
    anything is written).
    """
    base = _base()
    folders = [root(kind) for kind in PATHS]
    sources = [file for folder in folders for file in _files(folder, base)] + [base / page for page in PAGES]
    names = [source.relative_to(base).as_posix() for source in sources]
    written = []
    for name in names:
        copy = out / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(standalone(name, (base / name).read_text(encoding="utf-8"), names).encode())
        written.append(copy)
    return written
