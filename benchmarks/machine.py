"""The machine and the versions that figures belong to."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import Cores, nginx_program
from exporter import __version__


def describe(cores: Cores) -> str:
    """A few lines of text."""
    return "\n".join(
        (
            f"machine: {_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB;"
            f" Linux {platform.release()}; {_system()}",
            f"versions: websocket-exporter {__version__}, Python {platform.python_version()},"
            f" uvloop {version('uvloop')}, websockets {version('websockets')}, nginx {_nginx_version()}",
            f"measured on core {cores.measured}, both ends of the load on core {cores.load};"
            f" load average at the start: {' '.join(f'{load:.1f}' for load in os.getloadavg())}",
        )
    )


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


def _nginx_version() -> str:
    program = nginx_program()
    if program is None:
        return "missing"
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
    return told.strip().rpartition("/")[2]
