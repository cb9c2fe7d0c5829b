"""The webhook: closes that services report, each counted once.

`source` takes the events of a request, a book from `books` knows which of them were counted before.
"""

from exporter.sources.webhook.books import LONG, MEMORY_IDS, Book, MemoryBook, StorageBook
from exporter.sources.webhook.source import Outcome, Rules, Webhook

__all__ = ["LONG", "MEMORY_IDS", "Book", "MemoryBook", "Outcome", "Rules", "StorageBook", "Webhook"]
