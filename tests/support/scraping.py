"""The exporter's pages as a scraper gets them: real HTTP, read by prometheus_client's own parser."""

import asyncio
import contextlib
from collections import defaultdict

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from exporter.config import Address


async def fetch(address: Address, path: str, method: str = "GET", *fields: str) -> tuple[int, str]:
    """The status and body of one answer."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        lines = [f"{method} {path} HTTP/1.1", "Host: exporter.test", "Connection: close", *fields, "", ""]
        writer.write("\r\n".join(lines).encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Page:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        for family in self.families.values():
            for sample in family.samples:
                self.samples[sample.name].append(sample)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series of `name` that have these labels, among others; 0 where there is none."""
        return sum(sample.value for sample in self.samples[name] if labels.items() <= sample.labels.items())

    def counted(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """What is not 0 of `name`, by these labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for sample in self.samples[name]:
            found[tuple(sample.labels[label] for label in by)] += sample.value
        return {labels: value for labels, value in found.items() if value}


async def scrape(address: Address) -> Page:
    """Fetch /metrics in the classic text format."""
    status, body = await fetch(address, "/metrics")
    assert status == 200
    return Page(body)
