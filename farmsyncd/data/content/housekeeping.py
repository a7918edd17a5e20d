"""Clearing away what is kept no longer: versions, their manifests, differences and chunks.

Which versions may go is worked out from the catalog and the memory alone. Only when one really goes are the manifests
of the others read, once, to see which chunks nobody refers to any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from farmsyncd.data.changes import Change
from farmsyncd.data.content.deltas import DeltaRack
from farmsyncd.data.content.library import Library
from farmsyncd.data.content.retained import Held, droppable
from farmsyncd.data.keeper import Keeper
from farmsyncd.edges.catalog import Catalog, VersionRecord
from farmsyncd.edges.content.packs import Collected
from farmsyncd.edges.workthread import WorkThread

_HISTORY = 1000  # cycles of a dataset that are remembered


class Housekeeping:
    """Clears away. ``others`` are versions to keep besides those of the courses: pinned ones, nodes' own.

    ``catalog_thread`` is the catalog's, ``content_thread`` does what takes long. ``let_go`` releases
    what was held for uploads that broke off, and says how many; ``spare_since`` is from when on packs are left alone
    by the first look after a start (seconds of the wall clock), for such uploads of which nothing is known any more.
    """

    _log = Logger()

    def __init__(
        self,
        catalog: Catalog,
        catalog_thread: WorkThread,
        content_thread: WorkThread,
        keeper: Keeper,
        library: Library,
        deltas: DeltaRack,
        others: Callable[[], set[Held]],
        keep: int,
        let_go: Callable[[], int],
        spare_since: float,
    ) -> None:
        self._catalog = catalog
        self._catalog_thread = catalog_thread
        self._content_thread = content_thread
        self._keeper = keeper
        self._library = library
        self._deltas = deltas
        self._others = others
        self._keep = keep
        self._let_go = let_go
        self._spare_since = spare_since
        self._running: Deferred[None] | None = None
        self._again = False
        self._collect_next = True  # at the start: a crash may have left chunks that nobody refers to

    def changed(self, change: Change) -> None:
        """A course has changed: an activation, or a version that was dropped, may let something go."""
        if change.step is None or change.step.activated or change.step.dropped:
            self.soon()

    def soon(self) -> None:
        """Look for what can go; if that is being done, once more after it."""
        if self._running is not None:
            self._again = True
            return
        self._again = False
        self._running = Deferred.fromCoroutine(self.run())
        self._running.addErrback(lambda failure: self._log.failure("Clearing away failed", failure=failure))
        self._running.addBoth(self._done)

    def _done(self, _result: object) -> None:
        self._running = None
        if self._again:
            self.soon()

    def idle(self) -> Deferred[None]:
        """Fires when nothing is being cleared away."""
        done: Deferred[None] = Deferred()

        def look(_result: object) -> None:
            if self._running is None:
                done.callback(None)
            else:
                self._running.addBoth(look)

        look(None)
        return done

    async def run(self) -> None:
        """Clear away all that can go."""
        before = self._library.versions
        held, activations = await self._catalog_thread.run(self._read)
        gone = droppable(
            [(one.dataset, one.version) for one in held],
            self._keeper.courses.values(),
            activations,
            self._others(),
            self._keep,
        )
        still = {(one.dataset, one.version) for one in held}
        for one in gone:
            if await self._catalog_thread.run(self._catalog.drop_version, *one):
                still.discard(one)
                self._log.info("{dataset}: version {version} is kept no longer", dataset=one[0], version=one[1])
        # What was published since the catalog was read is part of a course by now, or still being used.
        wanted = {version for _dataset, version in still} | {version for _dataset, version in self._keeper.versions()}
        dropped = await self._library.drop(before - wanted)
        await self._deltas.drop(self._library.versions)
        if self._let_go() or dropped or self._collect_next:
            self._collect_next = False
            collected = await self._content_thread.run(self._collect)
            self._spare_since = float("inf")
            if collected.removed or collected.rewritten:
                self._log.info(
                    "Cleared away {removed} packs of {bytes} bytes, rewriting {rewritten}",
                    removed=collected.removed, bytes=collected.removed_bytes, rewritten=collected.rewritten,
                )  # fmt: skip

    def _read(self) -> tuple[list[VersionRecord], dict[str, Sequence[str]]]:
        held = self._catalog.versions()
        activations: dict[str, Sequence[str]] = {
            dataset: [
                one.version
                for one in reversed(self._catalog.history(dataset, _HISTORY))
                if one.outcome in {"active", "past"}
            ]
            for dataset in {one.dataset for one in held}
        }
        return held, activations

    async def forget_history(self) -> None:
        """Forget the oldest cycles of datasets that have had very many, then look for what can go."""
        for dataset in list(self._keeper.courses):
            await self._catalog_thread.run(self._catalog.prune, dataset, _HISTORY)
        self.soon()

    def _collect(self) -> Collected:
        # In the one content thread: whatever is being published has its manifest on the disk by now, or a hold.
        keep = self._library.digests(self._library.on_disk())
        return self._library.store.collect(keep, self._spare_since)
