"""`URL`: a service on websockets whose connections report how they ended."""

import asyncio
import http
import signal
import sys

from closes import Reporter
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets_closes import reporting

from tests.peers.servers.commands import REFUSED, Failure, announce, bound


async def converse(connection: ServerConnection) -> None:
    async for message in connection:
        match str(message).split():
            case ["close", code]:
                await connection.close(int(code), "as asked")
            case ["raise"]:
                raise Failure("as asked")
            case ["return"]:
                return
            case _:
                await connection.send(message)


def refuse(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(http.HTTPStatus.FORBIDDEN, "refused\n") if request.path == REFUSED else None


async def main() -> None:
    reporter = Reporter(sys.argv[1])
    listener = bound()
    server = await serve(
        converse, sock=listener, process_request=refuse, max_size=1024, create_connection=reporting(reporter)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    announce(listener.getsockname()[1])
    await server.wait_closed()
    await asyncio.to_thread(reporter.close)


if __name__ == "__main__":
    asyncio.run(main())
