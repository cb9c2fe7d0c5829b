"""Runs the long tests; a row that fails is run once more, and one that then passes is named as flaky.

Rows that mostly wait for others, and those that compute without looking at the time, run two at a time; the rest has
the machine for itself.
"""

import json
import subprocess
import sys
from pathlib import Path

CACHE = Path(".cache/matrix")

SIDE_BY_SIDE = (
    "tests/webhook/test_kills.py",
    "tests/test_alerts_scenarios.py",
    "tests/test_alerts_mutants.py",
    "tests/capture/test_beside_relay.py",
    "tests/capture/test_beside_tap.py",
    "tests/capture/test_closes_alone.py",
    "tests/peers/test_clients.py",
    "tests/peers/test_pairs.py",
    "tests/peers/test_servers.py",
    "tests/test_alerts.py",
)
"""In the order in which they begin: what takes long and cannot be divided first."""

OK, TESTS_FAILED, NO_TESTS = 0, 1, 5
"""Exit statuses of pytest."""


def run_rows(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "-m", "matrix", "-o", f"cache_dir={CACHE.resolve()}", *arguments]
    return subprocess.run(command, check=False).returncode


def run_all(arguments: list[str]) -> int:
    """Every row once; which of them `arguments` of pytest's say, else all. Returns pytest's exit status."""
    together = [] if arguments else [path for path in SIDE_BY_SIDE if Path(path).exists()]
    if not together:
        return run_rows("--cache-clear", *arguments)
    first = run_rows("--cache-clear", "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", *together)
    if first not in (OK, TESTS_FAILED):
        return first
    second = run_rows(*(f"--ignore={path}" for path in together))
    return max(first, OK if second == NO_TESTS else second)


def failed_rows() -> set[str]:
    record = CACHE / "v/cache/lastfailed"
    return set(json.loads(record.read_text())) if record.exists() else set()


def main(arguments: list[str]) -> int:
    status = run_all(arguments)
    if status == NO_TESTS:
        print("matrix: no rows")
        return OK
    if status != TESTS_FAILED:
        return status
    failed = failed_rows()
    print(f"once more: {len(failed)} failed", flush=True)
    status = run_rows("--last-failed", "--last-failed-no-failures=none", *arguments)
    still_failing = failed_rows()
    for row in sorted(failed - still_failing):
        print(f"flaky: {row}")
    print(f"matrix: {len(still_failing)} failed twice, {len(failed - still_failing)} flaky")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
