"""What is done for a node's disk when nothing else is.

Old versions are removed, links are made for the next one, and large files that came in are read into memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.retention import removable
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content import readin
from farmsyncd.edges.content.crew import Cancelled
from farmsyncd.node.record import Record
from farmsyncd.node.shelf import Shelf
from farmsyncd.node.staging.spare import Spare
from farmsyncd.node.surroundings import Surroundings

AHEAD_S: Final = 5.0
"""How long after a swap links are made for the next version, if nothing is known of that one by then.

As long after a version came in, its large files are read into memory.
"""
_NAP_S: Final = 0.01


class Upkeep:
    """Keeps one dataset's disk tidy. A version that a reader uses stays until the next time.

    ``busy`` says whether there is a next version, known or on its way in.
    """

    log = Logger()

    def __init__(
        self, dataset: str, cache: CacheDir, shelf: Shelf, around: Surroundings, busy: Callable[[], bool]
    ) -> None:
        self.links = Spare(cache, around.rest)
        self._dataset = dataset
        self._cache = cache
        self._shelf = shelf
        self._disk = around.disk
        self._cleaner = around.cleaner
        self._keep = around.keep
        self._wakes = around.wakes
        self._busy = busy
        self._rest = around.rest
        self._going: set[str] = set()
        self._came: Manifest | None = None
        self._making_way = False
        self._ahead: IDelayedCall | None = None
        self._stopped = False

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self.links.stop()
        self._forget_ahead()

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
            self._making_way = True
            # First the disk must know what took its place; but no record of a swap may wait for the removal.
            written = self._disk.run(lambda: None)
            written.addCallback(lambda _: self._cleaner.run(self._remove, going)).addErrback(self._failed)
        self._soon()

    def brought(self, manifest: Manifest) -> Manifest:
        """A version came in: it is given on."""
        self._came = manifest
        self._soon()
        return manifest

    def _soon(self) -> None:
        self._forget_ahead()
        if not self._stopped:
            self._ahead = self._wakes.callLater(AHEAD_S, self._look_ahead)

    def _forget_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()

    def _look_ahead(self) -> None:
        self._ahead = None
        came, self._came = self._came, None
        if came is not None and came.version in self._shelf.versions:
            self._making_way = False
            self._cleaner.run(self._read_in, came).addErrback(self._failed_ahead)
        version = self._shelf.current()
        if version in self._shelf.versions and not self._busy():
            self._cleaner.run(self._make_links, self._shelf.manifest(version)).addErrback(self._failed_ahead)

    def _read_in(self, came: Manifest) -> None:
        """In the cleaner's thread."""
        try:
            readin.read_in(self._cache.version_path(came.version), came, readin.room(), self._gently)
        except Cancelled:
            self._came = self._came or came  # what is left of it, if it is not what goes

    def _gently(self, amount: int) -> None:
        # The room of what is to be removed may be needed for the next version, before its time.
        if self._stopped or self._making_way:
            raise Cancelled("the node stops, or versions are to be removed")
        self._rest(amount)
        time.sleep(_NAP_S)

    def _make_links(self, manifest: Manifest) -> None:
        """In the cleaner's thread."""
        if not self._stopped:
            self.links.make(manifest)

    def spare(self, version: str) -> None:
        """``version`` is wanted again: do not remove what will be made of it."""
        self._going.discard(version)

    def _remove(self, versions: list[str]) -> None:
        """In the cleaner's thread."""
        for version in versions:
            if version in self._going:
                self._cache.remove(version)

    def _failed_ahead(self, failure: Failure) -> None:
        self.log.error(
            "{dataset}: what is done ahead of the next version failed: {error}",
            dataset=self._dataset,
            error=failure.getErrorMessage(),
        )

    def _failed(self, failure: Failure) -> None:
        self.log.error(
            "{dataset}: old versions cannot be removed: {error}",
            dataset=self._dataset, error=failure.getErrorMessage(),
        )  # fmt: skip
