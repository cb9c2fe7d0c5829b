"""What a client may ask of every test server, in a text message: the conversation that all of them speak.

`close` has the server close as its library does when no code is given, `close CODE` with that code; `return` leaves
the handler, `raise` fails in it. Any other message is echoed. The path REFUSED is not accepted.
"""

import argparse
import socket
from typing import Final

REFUSED: Final = "/refused"


class Failure(Exception):
    """The application's own fault."""


def close_code(message: str) -> int | None:
    """The code that a `close` names, None if it names none."""
    _, _, code = message.partition(" ")
    return int(code) if code else None


def arguments(*positional: str) -> argparse.Namespace:
    """`limit`, bytes that a message may have, and `ping`, seconds between Pings: None for none. And the `port`."""
    parser = argparse.ArgumentParser()
    for name in positional:
        parser.add_argument(name)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--ping", type=float)
    parser.add_argument("--port", type=int, default=0)
    return parser.parse_args()


def bound(port: int) -> socket.socket:
    """A listening socket; on a free port if that is 0."""
    return socket.create_server(("127.0.0.1", port), backlog=1000)


def announce(port: int) -> None:
    """Tell whoever started this program where it listens."""
    print(f"listening {port}", flush=True)
