"""The machine and the versions that figures belong to."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

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
            f" Envoy {_told(peers.envoy_program(), '--version')}",
            f"measured on core {cores.measured}, both ends of the load on core {cores.load}; {load()} at the start",
        )
    )


def load() -> str:
    """How busy the machine is, whoever makes it so."""
    return f"load average {' '.join(f'{load:.1f}' for load in os.getloadavg())}"


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
