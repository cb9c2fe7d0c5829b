"""A process that gets only a share of a core, as a CPU limit of Kubernetes has it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PERIOD: Final = 0.1
"""Seconds in which the share is to be had, all at once if need be: the kernel's default."""


@contextlib.contextmanager
def limited(pid: int, share: float) -> Iterator[str]:
    """Limit a process to `share` of a core: by a control group, or else by stopping it. Yields which."""
    with contextlib.ExitStack() as stack:
        try:
            how = stack.enter_context(_control_group(pid, share))
        except OSError:
            how = stack.enter_context(_duty_cycle(pid, share))
        yield how


@contextlib.contextmanager
def _control_group(pid: int, share: float) -> Iterator[str]:
    """In a group of its own. Raises OSError where none may be made."""
    root = _cpu_hierarchy()
    before = root / _path_in(root, pid) / "cgroup.procs"
    group = root / f"websocket-exporter-{os.getpid()}-{pid}"
    group.mkdir()
    period, quota = round(PERIOD * 1e6), round(PERIOD * share * 1e6)
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {period}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        group.rmdir()
        raise
    try:
        yield "control group"
    finally:
        with contextlib.suppress(ProcessLookupError):
            before.write_text(str(pid))
        group.rmdir()


def _cpu_hierarchy() -> Path:
    """Where groups that share CPU time are mounted, in either version. Raises OSError."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split()
        root = Path(mount)
        if kind == "cgroup" and "cpu" in options.split(","):
            return root
        if kind == "cgroup2" and "cpu" in (root / "cgroup.subtree_control").read_text().split():
            return root
    raise OSError("no control groups for CPU time")


def _path_in(root: Path, pid: int) -> str:
    """The group in which a process is."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" if (root / "cgroup.controllers").exists() else "cpu" in controllers.split(","):
            return path.lstrip("/")
    raise OSError("in no group")


@contextlib.contextmanager
def _duty_cycle(pid: int, share: float) -> Iterator[str]:
    """Stopped for most of each period."""
    over = threading.Event()

    def cycle() -> None:
        while not over.wait(PERIOD * share):
            os.kill(pid, signal.SIGSTOP)
            over.wait(PERIOD * (1 - share))
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=cycle)
    thread.start()
    try:
        yield "duty cycle"
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
