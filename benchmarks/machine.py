"""The machine and the versions that figures belong to."""

import os
import platform
import re
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks import peers
from benchmarks.processes import Cores
from exporter import __version__


def describe(cores: Cores) -> str:
    """A few lines of text."""
    return "\n".join(
        (
            f"machine: {_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB;"
            f" Linux {platform.release()}; {_system()}",
            f"versions: websocket-exporter {__version__}, Python {platform.python_version()},"
            f" uvloop {version('uvloop')}, websockets {version('websockets')},"
            f" nginx {_told(peers.nginx_program(), '-v')}, HAProxy {_told(peers.haproxy_program(), '-v')},"
            f" Envoy {_told(peers.envoy_program(), '--version')},"
            f" Pushgateway {_told(peers.pushgateway_program(), '--version')},"
            f" Starlette {version('starlette')}, pydantic {_pydantic()},"
            f" wrk {_told(peers.wrk_program(), '-v')}",
            f"measured on core {cores.measured}, both ends of the load on core {cores.load}; {load()} at the start",
        )
    )


def load() -> str:
    """How busy the machine is, whoever makes it so."""
    return f"load average {' '.join(f'{load:.1f}' for load in os.getloadavg())}"


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    found = [(len(Path(mount).parts), kind) for _, mount, kind, *_ in mounts if path.resolve().is_relative_to(mount)]
    # Of several at the same place the last covers the others.
    return max(enumerate(found), key=lambda entry: (entry[1][0], entry[0]))[1][1]


def sync_time(folder: Path, times: int = 50) -> float:
    """Seconds that it takes to write 4 KiB over others in a file in `folder` and have them on disk: the median.

    SQLite's log is written like this once it has grown: by fdatasync, with nothing but data to be synced.
    """
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for number in range(times):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), number.to_bytes(4096), 0)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return median(taken)


def _pydantic() -> str:
    return version("pydantic") if peers.receiver_present() else "missing"


def _cpu_model() -> str:
    found = re.search(r"(?m)^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _told(program: str | None, option: str) -> str:
    """The version that a program tells."""
    if program is None:
        return "missing"
    told = subprocess.run([program, option], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
    return found[0] if found else "unknown"
