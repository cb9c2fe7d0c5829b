"""The webhook: closes that services report, each counted once.

`source` takes the events of a request as a `batch`; a book, in memory or in the storage, knows which of them were
counted before.
"""

from exporter.sources.webhook.batch import LONG
from exporter.sources.webhook.book import Book
from exporter.sources.webhook.memory_book import MEMORY_IDS, MemoryBook
from exporter.sources.webhook.source import Outcome, Rules, Webhook
from exporter.sources.webhook.storage_book import StorageBook

__all__ = ["LONG", "MEMORY_IDS", "Book", "MemoryBook", "Outcome", "Rules", "StorageBook", "Webhook"]
