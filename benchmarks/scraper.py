"""A scraper that hardly rests: asks for /metrics again soon after it is answered. Once terminated, prints its pages/s.

Usage: python -m benchmarks.scraper WEB_PORT CODING, where CODING is what it accepts: `identity` or `gzip`.
"""

import signal
import sys
import time
from http.client import HTTPConnection
from typing import Final

REST: Final = 0.005
"""Seconds between an answer and the next request: without them the relay's core would be busy throughout."""


def main(port: int, coding: str) -> None:
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ending.append(number))
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    begin, answered = time.monotonic(), 0
    while not ending:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain", "Accept-Encoding": coding})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or not body or (coding == "gzip") != body.startswith(b"\x1f\x8b"):
            sys.exit(f"/metrics was answered with status {response.status} and {len(body)} bytes, asked for {coding}")
        answered += 1
        time.sleep(REST)
    print(answered / (time.monotonic() - begin))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
