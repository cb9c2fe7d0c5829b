"""Where reported events are entered, each once: a book remembers their ids.

A request is one entry: all its acceptable events are counted, or none. The book is in memory, or in the storage, where
it outlives the process.
"""

from typing import Protocol

from exporter.sources.webhook.batch import Batch
from exporter.storage import Committed


class Book(Protocol):
    """Where batches are entered, and ids remembered."""

    @property
    def ids(self) -> int:
        """How many ids are remembered."""
        ...

    @property
    def since(self) -> float:
        """The Unix time since which every id is remembered."""
        ...

    def enter_at_once(self, batch: Batch) -> Committed | None:
        """Count a batch without waiting; None where that cannot be, and then nothing is counted."""
        ...

    async def enter(self, batch: Batch) -> Committed | None:
        """Count a batch, all of it or nothing. Raises StorageError.

        None where ids have been forgotten since it was judged: nothing is counted, and it has to be judged again.
        """
        ...
