"""Real Prometheus and Alertmanager processes, on ports that the kernel chooses."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.stack import Prometheus, ended, eventually


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """A Prometheus with the folder's prometheus.yml."""
    flags = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}")
    with program(folder, "prometheus", *flags) as port:
        yield Prometheus(port)


@contextlib.contextmanager
def alertmanager(folder: Path) -> Iterator[int]:
    """An Alertmanager with the folder's alertmanager.yml, and no peers; yields its port."""
    flags = (f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'alerts'}")
    with program(folder, "prometheus-alertmanager", *flags, "--cluster.listen-address=") as port:
        yield port


@contextlib.contextmanager
def program(folder: Path, name: str, *flags: str) -> Iterator[int]:
    """A program of Prometheus' family; yields the port on which it listens. Its log is in the folder."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([name, *flags, "--web.listen-address=127.0.0.1:0"], stdout=log, stderr=log)
    try:
        yield eventually(lambda: _listening(process), 30, f"{name} listens")
    finally:
        ended(process)


def _listening(process: subprocess.Popen[bytes]) -> int | None:
    """The port on which it listens, which it does not say where it was given port 0."""
    assert process.poll() is None, "it has ended: see its log"
    own = Path(f"/proc/{process.pid}")
    inodes = {str(link.readlink()) for link in (own / "fd").iterdir() if link.is_symlink()}
    for line in (own / "net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in inodes:  # 0A: LISTEN
            return int(local.rpartition(":")[2], 16)
    return None
