"""The test server on tornado."""

import asyncio
import signal

from tornado import httpserver, web, websocket

from tests.peers.servers.commands import REFUSED, Failure, announce, arguments, bound, close_code


class Echo(websocket.WebSocketHandler):
    def prepare(self) -> None:
        if self.request.path == REFUSED:
            raise web.HTTPError(403)

    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        if message == "raise":
            raise Failure("as asked")
        if message == "return":
            return
        if isinstance(message, str) and message.startswith("close"):
            self.close(close_code(message))
        else:
            self.write_message(message, binary=isinstance(message, bytes))


async def main() -> None:
    chosen = arguments()
    listener = bound(chosen.port)
    listener.setblocking(False)
    settings = {} if chosen.limit is None else {"websocket_max_message_size": chosen.limit}
    if chosen.ping is not None:
        settings |= {"websocket_ping_interval": chosen.ping, "websocket_ping_timeout": chosen.ping}
    server = httpserver.HTTPServer(web.Application([(r"/.*", Echo)], **settings))
    server.add_socket(listener)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    announce(listener.getsockname()[1])
    await stopping.wait()
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
