"""Python's websockets: serve(handler, host, port, create_connection=reporting(Reporter(URL)))"""

import time

from closes import Reporter
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import PayloadTooBig


def reporting(reporter: Reporter) -> type[ServerConnection]:
    """Connections that report how they ended: which Close frame came first, the library knows."""

    class Reporting(ServerConnection):
        def connection_made(self, transport):
            self.opened = time.monotonic()
            super().connection_made(transport)

        def connection_lost(self, exc):
            super().connection_lost(exc)
            if self.response is None or self.response.status_code != 101:
                return  # never was a WebSocket
            closed = self.protocol.close_exc
            by_client = closed.rcvd is not None and closed.rcvd_then_sent is not False
            close = closed.rcvd if by_client else closed.sent
            duration = time.monotonic() - self.opened
            if close is None:  # the library never ends without a Close frame: the client did, or the network
                reporter.report(1006, "client", duration=duration)
                return
            refused = {}
            fault = closed.__cause__
            if isinstance(fault, PayloadTooBig) and fault.size is not None:
                size = fault.size + (fault.current_size or 0)
                refused = {"message_size": size, "direction": "client_to_server"}
            initiator = "client" if by_client else "server"
            reporter.report(close.code, initiator, duration=duration, reason=close.reason or None, **refused)

    return Reporting
