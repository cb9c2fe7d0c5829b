"""Finds the dashboards, alert rules and example configurations, in the wheel or in the checkout.

Both lay them out alike: in a checkout they stand beside `exporter/`, in a wheel below `exporter/_assets/`.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

Kind = Literal["dashboards", "alerts", "deploy"]

PATHS: Final[Mapping[Kind, str]] = {"dashboards": "dashboards/grafana", "alerts": "alerts", "deploy": "deploy"}
"""Where each kind stands below the base, in the wheel and in the checkout."""

LEFT_OUT: Final = frozenset({"alerts/tests"})
"""What only a checkout has: the rules' own tests. The wheel's build leaves it out too (pyproject.toml)."""

_PACKAGE: Final = Path(__file__).resolve().parent


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


def copy_to(out: Path) -> list[Path]:
    """Write every asset below `out`, laid out as in the checkout, over what stands there; return the files written.

    Relative references between them (a Prometheus configuration naming its rule files) hold in `out` too.
    Raises OSError (FileNotFoundError when this installation carries no assets, before anything is written).
    """
    base = _base()
    folders = [root(kind) for kind in PATHS]
    written = []
    for source in (file for folder in folders for file in _files(folder, base)):
        copy = out / source.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        written.append(copy)
    return written
