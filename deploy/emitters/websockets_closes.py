"""Python's websockets: serve(handler, host, port, create_connection=reporting(Reporter(URL)))"""

import time
from collections.abc import Callable

from closes import Reporter
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import PayloadTooBig


def address(connection: ServerConnection) -> str:
    """By what a client that returns is recognised. Behind a proxy take what it says of itself, such as a cookie."""
    return connection.remote_address[0]


def reporting(reporter: Reporter, client: Callable[[ServerConnection], str] = address) -> type[ServerConnection]:
    """Connections that report that they opened, and how they ended: which Close frame came first, the library knows."""

    class Reporting(ServerConnection):
        who = None  # once it is a WebSocket

        async def handshake(self, *args, **kwargs):
            await super().handshake(*args, **kwargs)
            self.report_open()

        def report_open(self):
            if self.who is None and self.response is not None and self.response.status_code == 101:
                self.opened = time.monotonic()
                self.who = {"client": client(self), "user_agent": self.request.headers.get("User-Agent")}
                reporter.opened(**self.who)

        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.report_open()  # it may be gone before the handshake's task goes on
            if self.who is None:
                return
            closed = self.protocol.close_exc
            by_client = closed.rcvd is not None and closed.rcvd_then_sent is not False
            close = closed.rcvd if by_client else closed.sent
            duration = time.monotonic() - self.opened
            if close is None:  # the library never ends without a Close frame: the client did, or the network
                reporter.report(1006, "client", duration=duration, **self.who)
                return
            fields = {"duration": duration, "reason": close.reason or None, **self.who}
            fault = closed.__cause__
            if isinstance(fault, PayloadTooBig) and fault.size is not None:
                fields |= {"message_size": fault.size + (fault.current_size or 0), "direction": "client_to_server"}
            reporter.report(close.code, "client" if by_client else "server", **fields)

    return Reporting
