"""`URL SERVER`: a Starlette service with the middleware, on uvicorn (with any of its implementations) or hypercorn."""

import asyncio
import contextlib
import signal
import sys

from asgi_closes import ReportCloses
from closes import Reporter
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.peers.servers.commands import REFUSED, Failure, announce, bound

LIMIT = 1024


async def converse(connection: WebSocket) -> None:
    await connection.accept()
    with contextlib.suppress(WebSocketDisconnect):
        async for text in connection.iter_text():
            match text.split():
                case ["close", code]:
                    await connection.close(int(code), "as asked")
                    return
                case ["raise"]:
                    raise Failure("as asked")
                case ["return"]:
                    return
                case ["push"]:  # a service that only ever sends
                    while True:
                        await connection.send_text("more")
                        await asyncio.sleep(0.01)
            await connection.send_text(text)


async def refuse(connection: WebSocket) -> None:
    await connection.close()


def main() -> None:
    url, server = sys.argv[1:]
    app = Starlette(routes=[WebSocketRoute("/", converse), WebSocketRoute(REFUSED, refuse)])
    app.add_middleware(ReportCloses, reporter=Reporter(url))
    listener = bound()
    announce(listener.getsockname()[1])
    if server == "hypercorn":
        asyncio.run(run_hypercorn(app, listener.fileno()))
        return
    import uvicorn

    config = uvicorn.Config(app, ws=server, ws_max_size=LIMIT, timeout_graceful_shutdown=3, log_level="critical")
    uvicorn.Server(config).run(sockets=[listener])


async def run_hypercorn(app: Starlette, listener: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener}"]
    config.websocket_max_message_size = LIMIT
    config.graceful_timeout = 1
    config.errorlog = None
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await serve(app, config, shutdown_trigger=stopping.wait)


if __name__ == "__main__":
    main()
