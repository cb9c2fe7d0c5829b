"""The status page: one self-contained HTML page, rendered in pieces so that the relay waits for none of it long."""

import asyncio
import base64
import hashlib
import re
import sys
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from exporter import __version__
from exporter.config.overlap import is_loopback
from exporter.status import Status
from exporter.web.status_view import FILTERS, WEIGHTS, shown

if TYPE_CHECKING:
    from jinja2 import Template

TURN: Final = 100
"""Pieces of the page after which the rest of the loop gets its turn: about 0.2 ms."""

SWITCH: Final = 0.0005
"""Seconds after which the thread that makes the first page ready gives way, instead of Python's 5 ms."""

_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::\d*)?")

_PASSED_ON: Final = (b"forwarded", b"via", b"x-real-ip")
"""Fields with which proxies say so; and X-Forwarded-anything."""


class _Look(NamedTuple):
    """What the page is made with, and the policy by which browsers run and load nothing else."""

    template: "Template"
    css: object
    policy: str


class StatusPage:
    """Shows what `snapshot` returns, one page after the other. The library for it comes with the first page."""

    def __init__(self, snapshot: Callable[[], Status], telemetry_path: str) -> None:
        self._snapshot = snapshot
        self._metrics = telemetry_path
        self._rendering = asyncio.Lock()
        self._look: _Look | None = None

    async def answer(self) -> Response:
        """The page of this moment."""
        async with self._rendering:
            if self._look is None:
                self._look = await asyncio.to_thread(_made)
            look = self._look
            page = await self._render(look)
        return HTMLResponse(
            page,
            headers={
                "content-security-policy": look.policy,
                "x-content-type-options": "nosniff",
                "cache-control": "no-store",
                "referrer-policy": "no-referrer",
                "cross-origin-resource-policy": "same-origin",
            },
        )

    async def _render(self, look: _Look) -> str:
        status = self._snapshot()
        pieces = look.template.generate(
            status=status, css=look.css, weights=WEIGHTS, metrics=self._metrics, version=__version__
        )
        page = []
        for number, piece in enumerate(pieces):
            if number % TURN == 0:
                await asyncio.sleep(0)
            page.append(piece)
        return "".join(page)


def addressed_locally(scope: Scope) -> bool:
    """Whether a request came over loopback, from this machine, to this machine by a name of its own.

    Any other name may belong to a web page elsewhere that has it point here (DNS rebinding), to read what it is shown.
    And what a proxy on this machine passes on comes over loopback too, from wherever: it mostly says so.
    """
    names = [name for name, _ in scope["headers"]]
    if any(name in _PASSED_ON or name.startswith(b"x-forwarded-") for name in names):
        return False
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return len(hosts) == 1 and _is_local(hosts[0]) and scope["server"] is not None and is_loopback(scope["server"][0])


def _is_local(host: str) -> bool:
    match = _HOST.fullmatch(host)
    name = "" if match is None else (match["ipv6"] or match["name"]).lower()
    return not name.endswith(".localhost") and is_loopback(name)


def _made() -> _Look:
    """For a thread: it takes a tenth of a second, though only once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH))
    try:
        return _make()
    finally:
        sys.setswitchinterval(interval)


def _make() -> _Look:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def finalized(value: object) -> object:
        return shown(value) if type(value) is str else value  # markup is ours, and is left as it is

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=finalized, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    folder = resources.files("exporter.web")
    css = folder.joinpath("status.css").read_text()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _Look(environment.from_string(folder.joinpath("status.html.jinja").read_text()), Markup(css), policy)
