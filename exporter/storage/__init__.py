"""What is remembered of reported events over restarts: their ids and their counts, in one SQLite file.

`open` a `Storage`, `commit` requests to it, `close` it. What `commit` has returned survives a crash and a power cut.
"""

from exporter.storage.errors import CommitFailed, StorageError, StorageFull, StorageHeld
from exporter.storage.storage import Committed, Entry, Storage

__all__ = ["CommitFailed", "Committed", "Entry", "Storage", "StorageError", "StorageFull", "StorageHeld"]
