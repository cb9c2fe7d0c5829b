"""An ASGI application that tells its clients whom it takes them for, over HTTP and over WebSocket."""

import json
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    answer = json.dumps({"client": scope["client"] and scope["client"][0], "scheme": scope["scheme"]})
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": answer})
        await send({"type": "websocket.close", "code": 1000})
    else:
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close"), length]})
        await send({"type": "http.response.body", "body": answer.encode()})
