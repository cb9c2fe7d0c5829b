"""Folders that are open to every user, and file systems of a few MiB."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest


class Disk(Protocol):
    """Makes a file system of its own with so many KiB, for as many files and folders as fit or for so many."""

    def __call__(self, size: int, files: int = 0) -> Path: ...


@pytest.fixture
def common(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that users other than this one can get to, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """See `Disk`. Unmounted after the test."""
    mounted: list[Path] = []

    def mount(size: int, files: int = 0) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k,nr_inodes={files}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
