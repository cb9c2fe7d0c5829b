"""The page that Prometheus scrapes, as a plain ASGI callable."""

import asyncio
import zlib
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import Metric
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from exporter.web.exposition import Format, negotiate, pieces
from exporter.web.negotiation import accepts_coding
from exporter.web.protocol import delivered

GZIP_LEVEL: Final = 3
"""Level 9, prometheus_client's choice, takes seven times as long for a quarter fewer bytes."""
TURN: Final = 4 * 1024
"""Bytes of text after which the rest of the loop gets its turn."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class MetricsPage:
    """Answers GET and HEAD with a snapshot, in the format and coding that the client prefers.

    `collect` takes the snapshot when it is called; what it returns may build the families lazily. `scraped(client,
    snapshot_taken_at)` is called once the whole answer to a GET has been handed to a connection that was still up:
    with the client's address, and with the time on `clock` just before the snapshot, so that it shows everything that
    was counted until then.
    """

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        scraped: Callable[[str, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._collect = collect
        self._scraped = scraped
        self._clock = clock
        # Pages are rendered one after the other: the relay waits for one piece of one page, however many are asked for.
        self._rendering = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Headers(scope=scope)
        form = negotiate(",".join(request.getlist("accept")))
        gzip = accepts_coding(",".join(request.getlist("accept-encoding")), "gzip")
        headers = {
            "content-type": form.content_type,
            "vary": "accept, accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if gzip:
            headers["content-encoding"] = "gzip"
        if scope["method"] == "HEAD":
            await _answer(send, headers, b"")
            return
        async with self._rendering:
            taken_at = self._clock()
            body = await _render(self._collect(), form, gzip=gzip)
        await _answer(send, headers | {"content-length": str(len(body))}, body)
        if delivered(scope):
            self._scraped(scope["client"][0].removeprefix("::ffff:"), taken_at)


async def _render(families: Iterable[Metric], form: Format, *, gzip: bool) -> bytes:
    """The whole body; nothing is sent before it is known to be sound, and no step of it takes long."""
    coder = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP) if gzip else None
    body = []
    turn = 0
    for piece in pieces(families, form):
        body.append(coder.compress(piece) if coder else piece)
        turn += len(piece)
        if turn >= TURN:
            turn = 0
            await asyncio.sleep(0)
    if coder:
        body.append(coder.flush())
    return b"".join(body)


async def _answer(send: Send, headers: dict[str, str], body: bytes) -> None:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})
