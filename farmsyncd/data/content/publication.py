"""How a tree becomes a version that is kept here, and a version a dataset's next cycle.

The order is what makes it safe: chunks are durable, then the manifest, then the cycle, and only then is anybody told.
A crash in between leaves something that nobody refers to, and housekeeping clears that away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import attrs
from twisted.internet.defer import Deferred

from farmsyncd.core.cycle import SECOND_NS, Step
from farmsyncd.core.refusal import Refused
from farmsyncd.core.snapshot import Kind, Manifest, decode_pieces
from farmsyncd.core.when import When
from farmsyncd.data.content.library import Library
from farmsyncd.data.keeper import Keeper
from farmsyncd.edges.catalog import VersionRecord
from farmsyncd.edges.content.packing import store_chunks
from farmsyncd.edges.content.packs import Hold
from farmsyncd.edges.content.tree import Scanned, scan
from farmsyncd.edges.content.treecache import TreeCache
from farmsyncd.edges.workthread import WorkThread

_LINGERS_NS = 3600 * SECOND_NS
_MOST_LINGERING = 16


@attrs.frozen
class Offer:
    """A version that somebody wants to publish. What of it is here, and what comes, stays until it is released."""

    manifest: Manifest = attrs.field(repr=False)
    hold: Hold = attrs.field(repr=False)

    @property
    def missing_bytes(self) -> int:
        """Bytes of the chunks that were not here, unpacked."""
        chunks = self.manifest.distinct_chunks()
        return sum(chunks[number][1] for number in self.hold.missing)

    def release(self) -> None:
        """Care no longer for what came of it."""
        self.hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()


class Publications:
    """Takes offers in, and publishes what is complete.

    ``thread`` is the library's, ``reading`` is for reading and packing trees of this machine, which takes longer.
    ``check_room`` is told how many bytes will be written, and raises Unavailable when the disk cannot take them.
    """

    def __init__(
        self,
        library: Library,
        keeper: Keeper,
        thread: WorkThread,
        reading: WorkThread,
        now_ns: Callable[[], int],
        check_room: Callable[[int], None],
    ) -> None:
        self._library = library
        self._keeper = keeper
        self._thread = thread
        self._reading = reading
        self._now_ns = now_ns
        self._check_room = check_room
        self._lingering: deque[tuple[int, Offer]] = deque()

    async def offer(self, pieces: tuple[bytes, ...], version: str) -> Offer:
        """Look at a manifest that is offered. Raises ManifestError (a PeerError); Unavailable when it is too much."""
        return await self._thread.run(self._offer, lambda: decode_pieces(pieces, version))

    async def offer_manifest(self, manifest: Manifest) -> Offer:
        """The same for a tree that was read here."""
        return await self._thread.run(self._offer, lambda: manifest)

    def _offer(self, find: Callable[[], Manifest]) -> Offer:
        manifest = find()
        offer = Offer(manifest, self._library.store.hold(manifest))
        try:
            self._check_room(offer.missing_bytes)
        except BaseException:
            offer.release()
            raise
        return offer

    def linger(self, offer: Offer) -> None:
        """Keep what came of an offer for an hour: its upload broke off, and may be taken up again."""
        self._lingering.append((self._now_ns() + _LINGERS_NS, offer))
        while len(self._lingering) > _MOST_LINGERING:
            self._lingering.popleft()[1].release()

    def let_go(self, *, all_of_them: bool = False) -> int:
        """Release the offers that have lingered long enough; how many."""
        count = 0
        while self._lingering and (all_of_them or self._lingering[0][0] <= self._now_ns()):
            self._lingering.popleft()[1].release()
            count += 1
        return count

    def keeps(self, version: str) -> bool:
        """Whether a version is kept here."""
        return version in self._library

    async def take_in(self, tree: Path, cache: Path) -> Offer:
        """Read a directory of this machine into the store, remembering its reading in the file ``cache``.

        Raises BadInput when it cannot be published. The offer is the caller's to release.
        """
        cache.parent.mkdir(parents=True, exist_ok=True)
        scanned = await self._reading.run(scan, tree, cache=TreeCache(cache))
        offer = await self.offer_manifest(scanned.manifest)
        try:
            await self._reading.run(self._store, scanned, offer.hold.missing)
        except BaseException:
            offer.release()
            raise
        return offer

    def _store(self, scanned: Scanned, numbers: list[int]) -> None:
        with self._library.store.writer() as writer:
            store_chunks(scanned, numbers, writer)

    def clear(self, work: Callable[[], None]) -> Deferred[None]:
        """Do away with what a source has made, where that disturbs nobody."""
        return self._reading.run(work)

    async def publish(
        self, offer: Offer, dataset: str, when: When, origin: str, by: str, *, unless_pending: bool = False
    ) -> Step | None:
        """Publish an offered version, all of whose chunks must have come. Raises Refused.

        None only when ``unless_pending`` is asked for, and something is pending.
        """
        manifest = offer.manifest
        if not unless_pending:
            self._keeper.foresee(dataset, manifest.version, when)  # refuse before anything is written
        missing = await self._thread.run(self._library.store.missing, manifest)
        if missing:
            raise Refused(
                "bad",
                f"expected all chunks of {manifest.version} before PUBLISH, and {len(missing)} have not come: "
                "offer it again, and send what is lacking",
            )
        with self._library.using(manifest.version):
            if manifest.version not in self._library:
                await self._library.keep(manifest)
            record = self._record(dataset, manifest)
            return await self._keeper.publish(record, when, origin, by, unless_pending=unless_pending)

    async def publish_kept(
        self, version: str, dataset: str, when: When, origin: str, by: str, *, unless_pending: bool = False
    ) -> Step | None:
        """The same for a version that is kept here already. Raises Refused: ``gone`` when it is not."""
        with self._using_kept(version):
            manifest = await self._library.manifest(version)
            missing = await self._thread.run(self._library.store.missing, manifest)
            if missing:
                raise Refused(
                    "gone", f"{len(missing)} chunks of {version} were found damaged here; publish its tree again"
                )
            record = self._record(dataset, manifest)
            return await self._keeper.publish(record, when, origin, by, unless_pending=unless_pending)

    @contextmanager
    def _using_kept(self, version: str) -> Iterator[None]:
        with self._library.using(version):
            if version not in self._library:
                raise Refused("gone", f"expected a version that is kept here, and {version} is not; publish it again")
            yield

    def _record(self, dataset: str, manifest: Manifest) -> VersionRecord:
        files = sum(entry.kind is Kind.FILE for entry in manifest.entries)
        return VersionRecord(dataset, manifest.version, self._now_ns(), files, manifest.total_bytes)
