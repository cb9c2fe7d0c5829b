"""The test server on aiohttp."""

from aiohttp import WSMsgType, web

from tests.peers.servers.commands import REFUSED, Failure, announce, arguments, bound, close_code


def application(limit: int | None, ping: float | None) -> web.Application:
    async def converse(request: web.Request) -> web.StreamResponse:
        if request.path == REFUSED:
            raise web.HTTPForbidden
        socket = web.WebSocketResponse(max_msg_size=limit or 0, heartbeat=ping)
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT and message.data == "return":
                break
            elif message.type == WSMsgType.TEXT and message.data == "raise":
                raise Failure("as asked")
            elif message.type == WSMsgType.TEXT and message.data.startswith("close"):
                code = close_code(message.data)
                await (socket.close() if code is None else socket.close(code=code))
            elif message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", converse)
    return app


def main() -> None:
    chosen = arguments()
    listener = bound(chosen.port)
    announce(listener.getsockname()[1])
    web.run_app(application(chosen.limit, chosen.ping), sock=listener, print=None, shutdown_timeout=0.5)


if __name__ == "__main__":
    main()
