"""Starlette, FastAPI, any ASGI application: app.add_middleware(ReportCloses, reporter=Reporter(URL))"""

import asyncio
import time

from closes import Reporter


def address(scope):
    """By what a client that returns is recognised. Behind a proxy take what it says of itself, such as a cookie."""
    return scope["client"][0] if scope.get("client") else None


class ReportCloses:
    """Sees every WebSocket open and end, as far as the server tells, and delivers the last when the server stops."""

    def __init__(self, app, reporter: Reporter, client=address):
        self.app, self.reporter, self.client = app, reporter, client

    async def __call__(self, scope, receive, send):
        """Pass everything on, and look at it."""
        if scope["type"] == "websocket":
            await _Watched(self.reporter, self._who(scope)).run(self.app, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self._deliver_before(send))
        else:
            await self.app(scope, receive, send)

    def _who(self, scope):
        agents = [value.decode("latin-1") for name, value in scope["headers"] if name == b"user-agent"]
        return {"client": self.client(scope), "user_agent": agents[0] if agents else None}

    def _deliver_before(self, send):
        async def wrapped(message):
            if message["type"].startswith("lifespan.shutdown."):  # by now the server has closed every WebSocket
                await asyncio.to_thread(self.reporter.close)
            await send(message)

        return wrapped


class _Watched:
    def __init__(self, reporter: Reporter, who):
        self.reporter, self.who, self.opened = reporter, who, None

    async def run(self, app, scope, receive, send):
        async def receive_and_see():
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1005
                self.ended(code, said_by(code), message.get("reason"))
            return message

        async def send_and_see(message):
            try:
                await send(message)
            except OSError:  # a server may tell of the end so, where nobody waits in receive()
                self.ended(1006, "unknown")
                raise
            if message["type"] == "websocket.accept":
                self.opened = time.monotonic()
                self.reporter.opened(**self.who)
            elif message["type"] == "websocket.close":
                self.ended(message.get("code", 1000), "server", message.get("reason"))

        try:
            await app(scope, receive_and_see, send_and_see)
        except Exception:
            self.ended(1011, "server")
            raise
        finally:  # returned or cancelled without a close: what the server says then is its own habit
            self.ended(1006, "server")

    def ended(self, code, initiator, reason=None):
        """What is seen first counts, once, and only of what was accepted."""
        if self.opened is not None:
            duration, self.opened = time.monotonic() - self.opened, None
            self.reporter.report(code, initiator, duration=duration, reason=reason or None, **self.who)


def said_by(code):
    """Who sent the Close frame that a server tells of. Of 1005, 1006, 1007, 1009 and 1011 it may be either side."""
    if code in (1000, 1001, 1008) or code >= 3000:
        return "client"
    return "server" if code == 1012 else "unknown"
