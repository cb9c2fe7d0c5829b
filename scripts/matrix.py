"""Runs the long tests; a row that fails is run once more, and one that then passes is named as flaky."""

import json
import subprocess
import sys
from pathlib import Path

CACHE = Path(".cache/matrix")

OK, TESTS_FAILED, NO_TESTS = 0, 1, 5
"""Exit statuses of pytest."""


def run_rows(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "-m", "matrix", "-o", f"cache_dir={CACHE.resolve()}", *arguments]
    return subprocess.run(command, check=False).returncode


def failed_rows() -> set[str]:
    record = CACHE / "v/cache/lastfailed"
    return set(json.loads(record.read_text())) if record.exists() else set()


def main(arguments: list[str]) -> int:
    status = run_rows("--cache-clear", *arguments)
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
