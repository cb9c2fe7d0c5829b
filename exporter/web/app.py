"""The pages of the exporter's listener, as one ASGI application."""

import html
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter import __version__
from exporter.status import Status
from exporter.web.errors import ErrorAnswers
from exporter.web.metrics import MetricsPage
from exporter.web.status import StatusPage, addressed_locally

HEALTHY: Final = "/-/healthy"
READY: Final = "/-/ready"
RELOAD: Final = "/-/reload"

_LANDING: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>websocket-exporter</title>
<style>body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 3rem auto; max-width: 34rem; padding: 0 1rem }}</style>
<h1>websocket-exporter</h1>
<p>Version {version}. Why WebSocket connections die, as Prometheus metrics.</p>
<p>The status page says in words what is wrong and what to do; because it names addresses and paths, it is shown in this
place only behind a password (<code>--web.config.file</code>), or where the exporter listens on loopback
(<code>--web.listen-address=127.0.0.1:11009</code>) and is asked by a local name.</p>
<ul>
<li><a href="{metrics}">Metrics</a></li>
<li><a href="{healthy}">Health</a></li>
<li><a href="{ready}">Readiness</a></li>
</ul>
</html>
"""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the pages show and do.

    `collect`, `scraped` and `clock` are those of `MetricsPage`. `ready` is whether the exporter takes new work.
    `reload` loads the configuration again, and says whether it was sound; None where reloading over HTTP is off.
    `status` is what the status page shows, None where there is none; `status_local_only` is whether only those see it
    who come over loopback and name no other host.
    """

    collect: Callable[[], Iterable[Metric]]
    scraped: Callable[[str, float], None]
    clock: Callable[[], float]
    ready: Callable[[], bool]
    reload: Callable[[], Awaitable[bool]] | None = None
    status: Callable[[], Status] | None = None
    status_local_only: bool = True


def build(hooks: Hooks, answers: ErrorAnswers, telemetry_path: str = "/metrics") -> ASGIApp:
    """The application: metrics, health, readiness, reload, and at / the status page.

    Whoever may not see that gets a landing page, which tells nothing of what is tapped.
    """

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("OK")

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready") if hooks.ready() else answers.response("not_ready")

    async def reload(_: Request) -> Response:
        if hooks.reload is None:
            return answers.response("lifecycle_disabled")
        return PlainTextResponse("reloaded") if await hooks.reload() else answers.response("reload_failed")

    status_page = None if hooks.status is None else StatusPage(hooks.status, telemetry_path)

    async def front(request: Request) -> Response:
        if status_page is None or (hooks.status_local_only and not addressed_locally(request.scope)):
            return _landing(telemetry_path)
        return await status_page.answer()

    async def fault(_: Request, exception: Exception) -> Response:
        return _fault(exception, answers)

    pages = Starlette(
        routes=[
            Route(telemetry_path, MetricsPage(hooks.collect, hooks.scraped, hooks.clock), methods=["GET"]),
            Route(HEALTHY, healthy, methods=["GET"]),
            Route(READY, ready, methods=["GET"]),
            Route(RELOAD, reload, methods=["POST"]),
            Route("/", front, methods=["GET"]),
        ],
        exception_handlers={HTTPException: fault, Exception: fault},
    )
    pages.router.redirect_slashes = False
    return _after_the_body(pages)


def _after_the_body(app: ASGIApp) -> ASGIApp:
    """`app`, called once the request has arrived whole, so that a fault in its body can be answered as one.

    The body itself is dropped: no page reads any.
    """

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        await app(scope, receive, send)

    return whole


def _landing(telemetry_path: str) -> Response:
    page = _LANDING.format(version=__version__, metrics=html.escape(telemetry_path), healthy=HEALTHY, ready=READY)
    return HTMLResponse(
        page,
        headers={
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
            "x-content-type-options": "nosniff",
        },
    )


def _fault(exception: Exception, answers: ErrorAnswers) -> Response:
    """The router's 404 and 405, and our own faults, in the one shape."""
    match exception:
        case HTTPException(status_code=404):
            return answers.response("not_found")
        case HTTPException(status_code=405, headers=headers):
            methods = (headers or {}).get("Allow", "").split(", ")
            return answers.response("method_not_allowed", allow=", ".join(sorted(methods)))
        case _:
            return answers.response("internal_error")
