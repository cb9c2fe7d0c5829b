"""The test server as an ASGI application, on uvicorn (with any of its WebSocket implementations) or hypercorn."""

import asyncio
import signal
import sys
from typing import Any

from tests.peers.servers.commands import REFUSED, Failure, announce, arguments, bound, close_code


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] != "websocket":
        raise Failure(f"not a WebSocket: {scope['type']}")
    await receive()
    if scope["path"] == REFUSED:
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is None:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
        elif event["text"] == "return":
            return None
        elif event["text"] == "raise":
            raise Failure("as asked")
        elif event["text"].startswith("close"):
            code = close_code(event["text"])
            return await send({"type": "websocket.close"} | ({} if code is None else {"code": code}))
        else:
            await send({"type": "websocket.send", "text": event["text"]})
    return None


async def lifespan(receive: Any, send: Any) -> None:
    while (event := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{event['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def run_uvicorn(implementation: str, limit: int | None, ping: float | None, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        ws=implementation,
        ws_max_size=limit or 1 << 30,
        ws_ping_interval=ping,
        ws_ping_timeout=ping,
        timeout_graceful_shutdown=1,
        log_level="critical",
    )
    listener = bound(port)
    announce(listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])


def run_hypercorn(limit: int | None, ping: float | None, port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    listener = bound(port)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.websocket_max_message_size = limit or 1 << 30
    config.websocket_ping_interval = ping
    config.graceful_timeout = 1
    config.errorlog = None

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await serve(app, config, shutdown_trigger=stopping.wait)

    announce(listener.getsockname()[1])
    asyncio.run(main())


def main() -> None:
    chosen = arguments("server")
    if chosen.server == "hypercorn":
        run_hypercorn(chosen.limit, chosen.ping, chosen.port)
    else:
        run_uvicorn(chosen.server, chosen.limit, chosen.ping, chosen.port)


if __name__ == "__main__":
    sys.exit(main())
