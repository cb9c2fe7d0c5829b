"""A whole exporter in the test's own loop: one real tap in front of an upstream, and its real /metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from exporter.app import App
from exporter.config import Address, Config, TapConfig, Target, UnixPath
from exporter.config import load as load_config
from exporter.insight.insight import Rules
from tests.support.loops import eventually
from tests.support.scraping import Page, scrape

LOOPBACK: Final = Address("127.0.0.1", 0)

Closes = dict[tuple[str, ...], float]
"""How many by code, class and initiator."""


def configured(upstream: Address | UnixPath, *targets: Target, **settings: Any) -> Config:
    """One tap on a free port, and defaults. It counts for the first target; without any, for `chat`."""
    targets = targets or (Target("chat"),)
    defaults = load_config({"web.listen-address": "127.0.0.1:0", "web.enable-lifecycle": "true"})
    ours: dict[str, Any] = {
        "targets": {target.name: target for target in targets},
        "tap": (TapConfig(LOOPBACK, upstream, targets[0].name),),
        "shutdown_grace": 0.0,
    }
    return msgspec.structs.replace(defaults, **(ours | settings))


class Watched:
    """A running exporter and what it says of its tap's connections."""

    def __init__(self, app: App, running: asyncio.Task[None]) -> None:
        self.app = app
        self.running = running

    @property
    def address(self) -> Address:
        """Where the tap listens."""
        return self.app.addresses[0]

    @property
    def url(self) -> str:
        return f"ws://{self.address}/chat"

    async def scrape(self) -> Page:
        return await scrape(self.app.web_address)

    async def page(self, condition: Callable[[Page], bool], within: float = 5.0) -> Page:
        """The first scrape of which `condition` holds."""

        async def look() -> Page | None:
            page = await self.scrape()
            return page if condition(page) else None

        found = await eventually(look, within)
        assert found is not None
        return found

    async def closes(self, count: int = 1, within: float = 5.0) -> Closes:
        """Every close counted, as soon as there are `count`; by then nothing is open any more."""
        page = await self.page(lambda page: page.value("websocket_closes_total") >= count, within)
        assert page.value("websocket_connections_active") == 0
        return page.counted("websocket_closes_total", "code", "class", "initiator")

    async def handshakes(self, count: int = 1, within: float = 5.0) -> dict[tuple[str, ...], float]:
        """Every opening handshake counted, by outcome and status, as soon as there are `count`."""
        page = await self.page(lambda page: page.value("websocket_handshakes_total") >= count, within)
        return page.counted("websocket_handshakes_total", "outcome", "status")


@contextlib.asynccontextmanager
async def watching(
    upstream: Address | UnixPath,
    *targets: Target,
    load: Callable[[], Config] | None = None,
    insight_rules: Rules | None = None,
    **settings: Any,
) -> AsyncIterator[Watched]:
    """Run an exporter with one tap in front of `upstream`, and end it without any grace unless that is set."""
    app = App(configured(upstream, *targets, **settings), load, insight_rules=insight_rules)
    await app.open()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(app.run())
        try:
            yield Watched(app, running)
        finally:
            running.cancel()
