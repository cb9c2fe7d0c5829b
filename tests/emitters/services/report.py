"""`URL` and options: reports so many closes as fast as it can, and delivers them."""

import argparse
import base64
import logging
import time

from closes import Reporter
from signed_closes import signed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--code", type=int, default=1000)
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--secret")
    parser.add_argument("--password")
    chosen = parser.parse_args()
    logging.basicConfig()
    options = {}
    if chosen.secret is not None:
        options["headers"] = signed(chosen.secret)
    if chosen.password is not None:
        basic = base64.b64encode(chosen.password.encode()).decode()
        options["headers"] = lambda body: {"Authorization": f"Basic {basic}"}
    reporter = Reporter(chosen.url, most=chosen.most, **options)
    began = time.monotonic()
    for _ in range(chosen.count):
        reporter.report(chosen.code, "client", duration=1.5)
    print("took", time.monotonic() - began, flush=True)
    print("dropped", reporter.dropped, flush=True)
    reporter.close(40)
    print("closed", flush=True)


if __name__ == "__main__":
    main()
