"""The test server on websockets (asyncio)."""

import asyncio
import http
import signal

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.peers.servers.commands import REFUSED, Failure, announce, arguments, bound, close_code


async def converse(connection: ServerConnection) -> None:
    async for message in connection:
        if message == "return":
            return
        if message == "raise":
            raise Failure("as asked")
        if isinstance(message, str) and message.startswith("close"):
            code = close_code(message)
            await (connection.close() if code is None else connection.close(code))
        else:
            await connection.send(message)


def refuse(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(http.HTTPStatus.FORBIDDEN, "refused\n") if request.path == REFUSED else None


async def main() -> None:
    chosen = arguments()
    listener = bound(chosen.port)
    server = await serve(
        converse,
        sock=listener,
        process_request=refuse,
        max_size=chosen.limit,
        ping_interval=chosen.ping,
        ping_timeout=chosen.ping,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    announce(listener.getsockname()[1])
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
