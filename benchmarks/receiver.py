"""What a service gets when its reports go to a receiver as it is usually written: Starlette, a pydantic model of the
event, and prometheus_client, on uvicorn with uvloop and httptools.

It counts closes and their durations, and does nothing else: no event is told apart from another, nothing outlives the
process. One worker, as the numbers of prometheus_client are those of one process; without uvicorn's access log.
Usage: python -m benchmarks.receiver PORT.
"""

import sys
from datetime import datetime
from typing import Annotated, Literal

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.posting import NDJSON

CLOSES = Counter("websocket_closes", "Closed WebSockets.", ["target", "code", "initiator"])
DURATION = Histogram("websocket_connection_duration_seconds", "From open to close.", ["target"])

Size = Annotated[int, Field(ge=0)]


class Event(BaseModel):
    event: Literal["close", "open"] = "close"
    code: int = Field(ge=0, le=4999)
    reason: str = ""
    initiator: Literal["client", "server", "unknown"] = "unknown"
    target: str
    id: str | None = Field(None, min_length=1, max_length=256)
    source: str = Field("", max_length=256)
    time: datetime | None = None
    duration: float | None = Field(None, ge=0, allow_inf_nan=False)
    message_size: Size | None = None
    direction: Literal["client_to_server", "server_to_client"] | None = None
    largest_message: Size | None = None
    client: str | None = None
    user_agent: str | None = None


EVENTS = TypeAdapter(list[Event])


def decode(content_type: str | None, body: bytes) -> list[Event]:
    if content_type == NDJSON:
        return [Event.model_validate_json(line) for line in body.splitlines()]
    if body.startswith(b"["):
        return EVENTS.validate_json(body)
    return [Event.model_validate_json(body)]


async def receive(request: Request) -> JSONResponse:
    try:
        events = decode(request.headers.get("content-type"), await request.body())
    except ValidationError as error:
        return JSONResponse({"detail": str(error)}, 422)
    for event in events:
        CLOSES.labels(event.target, event.code, event.initiator).inc()
        if event.duration is not None:
            DURATION.labels(event.target).observe(event.duration)
    return JSONResponse({"accepted": len(events)})


async def metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


app = Starlette(routes=[Route("/closes", receive, methods=["POST"]), Route("/metrics", metrics)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
