"""Removing versions that a node's disk need not keep any longer."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.retention import removable
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.node.record import Record
from farmsyncd.node.shelf import Shelf
from farmsyncd.node.worker import Worker


class Upkeep:
    """Keeps one dataset's disk tidy. A version that a reader uses stays until the next time.

    ``disk`` is the thread that writes the record, ``cleaner`` the one that removes: that may take long.
    """

    log = Logger()

    def __init__(self, dataset: str, cache: CacheDir, shelf: Shelf, disk: Worker, cleaner: Worker, keep: int) -> None:
        self._dataset = dataset
        self._cache = cache
        self._shelf = shelf
        self._disk = disk
        self._cleaner = cleaner
        self._keep = keep
        self._going: set[str] = set()

    def tidy(self, needed: Collection[str], record: Record) -> None:
        """Remove what is neither ``needed`` nor to be kept; from here on it is not used, though this takes a while."""
        going = removable(
            self._cache.versions(),
            active=None,
            staged=needed,
            pinned=record.pins,
            activations=record.activations,
            keep=self._keep,
        )
        self._shelf.drop(going)
        self._going = set(going)
        if going:
            # First the disk must know what took its place; but no record of a swap may wait for the removal.
            written = self._disk.run(lambda: None)
            written.addCallback(lambda _: self._cleaner.run(self._remove, going)).addErrback(self._failed)

    def spare(self, version: str) -> None:
        """``version`` is wanted again: do not remove what will be made of it."""
        self._going.discard(version)

    def _remove(self, versions: list[str]) -> None:
        """In the cleaner's thread."""
        for version in versions:
            if version in self._going:
                self._cache.remove(version)

    def _failed(self, failure: Failure) -> None:
        self.log.error(
            "{dataset}: old versions cannot be removed: {error}",
            dataset=self._dataset, error=failure.getErrorMessage(),
        )  # fmt: skip
