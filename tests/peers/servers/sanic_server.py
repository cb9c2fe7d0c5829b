"""The test server on sanic."""

from sanic import Request, Sanic, SanicException, Websocket

from tests.peers.servers.commands import REFUSED, Failure, announce, arguments, bound, close_code

app = Sanic("peer")


@app.middleware("request")  # type: ignore[misc]
async def refuse(request: Request) -> None:
    if request.path == REFUSED:
        raise SanicException("refused", status_code=403, quiet=True)


@app.websocket("/<path:path>")  # type: ignore[misc]
async def converse(request: Request, connection: Websocket, path: str) -> None:
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


def main() -> None:
    chosen = arguments()
    listener = bound(chosen.port)
    app.config.WEBSOCKET_MAX_SIZE = chosen.limit or 1 << 30
    app.config.WEBSOCKET_PING_INTERVAL = chosen.ping
    app.config.WEBSOCKET_PING_TIMEOUT = chosen.ping
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 1.0
    announce(listener.getsockname()[1])
    app.run(sock=listener, single_process=True, motd=False, access_log=False)


if __name__ == "__main__":
    main()
