"""The page that Prometheus scrapes, over real connections."""

import asyncio
import gzip
import itertools
from collections.abc import Awaitable, Callable, Iterable

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.config import Address
from tests.web.support import connected, eventually, fetch, request, serving

Run = Callable[[Awaitable[None]], None]

OPENMETRICS = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


def many(series: int) -> list[Metric]:
    family = GaugeMetricFamily("temperature", "Of many sensors.", labels=["sensor", "building"])
    for number in range(series):
        family.add_metric([f"sensor-{number}", "the one with the long name behind the other one"], number)
    return [family]


def some() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("requests", "All.", registry=registry).inc()
    Histogram("latency_seconds", "Slow.", registry=registry).observe(1)
    return registry


def test_without_a_wish_the_classic_text_format_is_served(run: Run) -> None:
    """The body is prometheus_client's own, byte for byte, with its content type and length."""
    registry = some()

    async def check() -> None:
        async with serving(collect=registry.collect) as site:
            answer = await fetch(site, "/metrics")
            assert answer.status == 200
            assert answer.body == generate_latest(registry)
            assert answer.fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert answer.fields["vary"] == "accept, accept-encoding"
            assert "content-encoding" not in answer.fields
            assert "date" in answer.fields
            assert "server" not in answer.fields

    run(check())


def test_openmetrics_is_served_when_asked_for(run: Run) -> None:
    """A scraper that prefers OpenMetrics gets it, ended once."""
    registry = some()

    async def check() -> None:
        async with serving(collect=registry.collect) as site:
            answer = await fetch(site, "/metrics", "GET", OPENMETRICS)
            assert answer.body == generate_openmetrics(registry)
            assert answer.body.endswith(b"# EOF\n")
            assert answer.body.count(b"# EOF") == 1
            assert answer.fields["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"

    run(check())


def test_several_accept_fields_are_read_as_one(run: Run) -> None:
    """A wish may be spread over fields of the same name (RFC 9110 section 5.3)."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request("/metrics", "GET", "Accept: text/plain;q=0.1", OPENMETRICS))
            assert (await client.answer()).fields["content-type"].startswith("application/openmetrics-text")

    run(check())


@pytest.mark.parametrize("accept", ["Accept: text/plain", OPENMETRICS])
def test_a_body_is_compressed_for_those_who_take_it(run: Run, accept: str) -> None:
    """With gzip accepted the same bytes come compressed, in either format."""

    async def check() -> None:
        async with serving(collect=lambda: many(3000)) as site:
            plain = await fetch(site, "/metrics", "GET", accept)
            coded = await fetch(site, "/metrics", "GET", accept, "Accept-Encoding: gzip, deflate")
            assert coded.fields["content-encoding"] == "gzip"
            assert gzip.decompress(coded.body) == plain.body
            assert len(coded.body) < len(plain.body) / 5

    run(check())


def test_head_answers_with_the_fields_alone(run: Run) -> None:
    """HEAD gets what a GET would, without the body, and does not count as a scrape."""

    async def check() -> None:
        async with serving() as site, connected(site.address) as client:
            await client.send(request("/metrics", "HEAD", "Accept-Encoding: gzip"))
            answer = await client.answer(head_only=True)
            assert answer.status == 200
            assert answer.fields["content-type"].startswith("text/plain")
            assert answer.fields["content-encoding"] == "gzip"
            await client.send(request())
            assert (await client.answer()).body == b"OK"
            assert site.scrapes == []

    run(check())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(run: Run, method: str) -> None:
    """/metrics answers GET and HEAD only, and says so."""

    async def check() -> None:
        async with serving() as site:
            answer = await fetch(site, "/metrics", method)
            assert answer.status == 405
            assert answer.error["error"] == "method_not_allowed"
            assert answer.fields["allow"] == "GET, HEAD"
            assert site.errors == {"method_not_allowed": 1}

    run(check())


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_large_page_leaves_the_loop_to_others(run: Run, coding: str) -> None:
    """While 3,000 series are rendered, everything else on the loop gets its turn dozens of times."""
    turns = itertools.count()
    during: list[int] = []

    def collect() -> Iterable[Metric]:
        during.append(next(turns))
        yield from many(3000)
        during.append(next(turns))

    async def others() -> None:
        while len(during) < 2:
            next(turns)
            await asyncio.sleep(0)

    async def check() -> None:
        async with serving(collect=collect) as site, asyncio.TaskGroup() as tasks:
            tasks.create_task(others())
            answer = await fetch(site, "/metrics", "GET", f"Accept-Encoding: {coding}")
            assert answer.status == 200

    run(check())
    assert during[1] - during[0] > 40


def test_pages_are_rendered_one_after_the_other(run: Run) -> None:
    """Many scrapers at once do not add up their work between two turns of the loop."""
    under_way = 0
    most = 0

    def collect() -> Iterable[Metric]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        yield from many(1000)
        under_way -= 1

    async def check() -> None:
        async with serving(collect=collect) as site:
            answers = await asyncio.gather(*(fetch(site, "/metrics") for _ in range(8)))
            assert [answer.status for answer in answers] == [200] * 8

    run(check())
    assert most == 1


def test_a_scrape_is_reported_with_the_time_of_its_snapshot(run: Run) -> None:
    """After a whole answer the scraper's address and the time just before its snapshot are reported."""
    times = itertools.count(100)

    def collect() -> Iterable[Metric]:
        next(times)
        return many(1)

    async def check() -> None:
        async with (
            serving(collect=collect, clock=lambda: float(next(times))) as site,
            connected(site.address) as client,
        ):
            for _ in range(2):
                await client.send(request("/metrics"))
                assert (await client.answer()).status == 200
            assert site.scrapes == [("127.0.0.1", 100.0), ("127.0.0.1", 102.0)]

    run(check())


def test_on_a_listener_for_both_kinds_of_address_ipv4_scrapers_keep_their_name(run: Run) -> None:
    """A scraper is reported under its IPv4 address, not as ::ffff: of it."""

    async def check() -> None:
        async with serving(address=Address("", 0)) as site:
            async with connected(Address("127.0.0.1", site.address.port)) as client:
                await client.send(request("/metrics"))
                assert (await client.answer()).status == 200
            assert [client for client, _ in site.scrapes] == ["127.0.0.1"]

    run(check())


def test_a_scraper_that_left_meanwhile_is_not_reported(run: Run) -> None:
    """An answer that had nobody to go to is no scrape."""
    rendered = asyncio.Event()
    leave = asyncio.Event()

    def collect() -> Iterable[Metric]:
        leave.set()
        yield from many(5000)
        rendered.set()

    async def check() -> None:
        async with serving(collect=collect) as site:
            async with connected(site.address) as client:
                await client.send(request("/metrics"))
                await leave.wait()
                client.writer.transport.abort()
            await rendered.wait()
            await fetch(site, "/-/healthy")
            assert site.scrapes == []

    run(check())


def test_a_scrape_is_reported_when_all_of_it_is_handed_over(run: Run) -> None:
    """The report does not wait for the scraper to read: what is on its way counts as fetched."""

    async def check() -> None:
        async with serving(collect=lambda: many(10_000)) as site, connected(site.address) as client:
            await client.send(request("/metrics"))
            await eventually(lambda: len(site.scrapes) == 1)

    run(check())


def test_a_fault_while_rendering_is_a_500_and_not_half_a_page(run: Run) -> None:
    """Nothing is sent before the page is sound: a label that cannot be encoded gives a counted error instead."""

    async def check() -> None:
        async with serving(collect=lambda: [*many(500), *unencodable()]) as site:
            answer = await fetch(site, "/metrics")
            assert answer.status == 500
            assert answer.error["error"] == "internal_error"
            assert answer.fields["x-content-type-options"] == "nosniff"
            assert site.errors == {"internal_error": 1}
            assert site.scrapes == []

    run(check())


def unencodable() -> list[Metric]:
    family = GaugeMetricFamily("poison", "One label value.", labels=["reason"])
    family.add_metric(["\ud800"], 1)
    return [family]
