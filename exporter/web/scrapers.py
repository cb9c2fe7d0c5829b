"""Who scrapes regularly, and who of them has not yet fetched the last events; pure.

On shutdown the exporter keeps serving /metrics until nobody is left to wait for: counts that no scrape has fetched
die with the process.
"""

from dataclasses import dataclass
from typing import Final

CAPACITY: Final = 64
"""Clients remembered at most."""
FORGOTTEN_AFTER: Final = 300.0
"""Seconds without an answer after which a scraper is taken for gone; Prometheus calls series stale after as long."""


@dataclass(slots=True)
class _Scraper:
    answers: int
    snapshot_taken_at: float

    @property
    def regular(self) -> bool:
        return self.answers >= 2


class Scrapers:
    """Remembers scrapers by the address they come from; those answered at least twice count as regular."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._seen: dict[str, _Scraper] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def answered(self, client: str, snapshot_taken_at: float) -> None:
        """`client` was sent a whole answer, showing the counts of that moment (seconds of a monotonic clock)."""
        known = self._seen.get(client)
        if known is not None:
            known.answers += 1
            # Answers overlap: the one that ends last need not be the one that began last.
            known.snapshot_taken_at = max(known.snapshot_taken_at, snapshot_taken_at)
            return
        if len(self._seen) >= self._capacity:
            del self._seen[min(self._seen, key=self._worth)]
        self._seen[client] = _Scraper(1, snapshot_taken_at)

    def waiting_for(self, since: float) -> set[str]:
        """The regular scrapers that were last seen before `since`, but not so long before that they must be gone."""
        return {
            client
            for client, scraper in self._seen.items()
            if scraper.regular and since - FORGOTTEN_AFTER <= scraper.snapshot_taken_at <= since
        }

    def _worth(self, client: str) -> tuple[bool, float]:
        scraper = self._seen[client]
        return scraper.regular, scraper.snapshot_taken_at
