"""The test server on granian, which listens by itself and in a process of its own."""

import socket
import threading
import time

from granian import Granian
from granian.constants import Interfaces

from tests.peers.servers.commands import announce, arguments


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def announce_when_listening(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return announce(port)


def main() -> None:
    arguments()
    port = free_port()
    threading.Thread(target=announce_when_listening, args=[port], daemon=True).start()
    Granian("tests.peers.servers.asgi:app", "127.0.0.1", port, interface=Interfaces.ASGI, log_enabled=False).serve()


if __name__ == "__main__":
    main()
