"""The chunk store: every chunk of every version that is kept, once, in packs that can be sent as they lie.

A pack is a file of CHUNK frames (:mod:`farmsyncd.core.chunkframes`): to serve chunks is to send ranges of files.
Chunks are verified when they come and whenever they are read; one that is found damaged is forgotten, so that it is
missing and the next publication or upload that has it heals it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import attrs
from twisted.logger import Logger

from farmsyncd.core.chunkframes import read_head
from farmsyncd.core.chunks import Damaged, Unpacker
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content.packindex import Place
from farmsyncd.edges.content.packwriter import PACK_SIZE, PackWriter
from farmsyncd.edges.content.shelf import OpenPack, Shelf
from farmsyncd.errors import BadInput, LocalError, Unavailable

_SMALL: Final = 16 * 1024 * 1024
"""Bytes of a pack from which on it is not rewritten only because there are many."""
_MANY: Final = 16
"""Packs of about one size that are made one: each chunk is rewritten a few times at most."""


@attrs.frozen
class Extent:
    """A range of a pack that holds whole CHUNK frames. The pack stays readable for as long as this is held."""

    pack: OpenPack = attrs.field(repr=False)
    offset: int
    length: int

    @property
    def fd(self) -> int:
        """The open file to send from, by offset (its position is nobody's)."""
        return self.pack.fd

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from byte ``at`` of this range; empty at its end."""
        return os.pread(self.pack.fd, min(size, self.length - at), self.offset + at)


@attrs.define(eq=False)
class Hold:
    """Chunks that collecting leaves alone until this is released: those of a version on its way in.

    ``missing`` are the numbers of the chunks that were not there when the hold began. A context manager.
    """

    missing: list[int]
    digests: frozenset[bytes] = attrs.field(repr=False)
    _release: Callable[[Hold], None] = attrs.field(repr=False)

    def release(self) -> None:
        """Let go; again does nothing."""
        self._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@attrs.frozen
class Collected:
    """What a collection did: packs removed, those rewritten into new ones, and the bytes of the removed ones."""

    removed: int
    rewritten: int
    removed_bytes: int


class ChunkStore:
    """The chunks in ``directory``. Its methods block; they may be called from any thread.

    Making one reads the indexes and repairs what a crash left. Raises LocalError when the directory cannot be used.
    """

    log = Logger()

    def __init__(self, directory: Path, pack_size: int = PACK_SIZE) -> None:
        self._shelf = Shelf(directory)
        self._pack_size = pack_size
        self._unpacker = Unpacker()
        self._holds: list[Hold] = []
        self._collecting = threading.Lock()

    def __len__(self) -> int:
        return len(self._shelf.places)

    def has(self, digest: bytes) -> bool:
        """Whether the chunk is here, durable."""
        return digest in self._shelf.places

    def missing(self, manifest: Manifest) -> list[int]:
        """The numbers (in ``manifest.distinct_chunks()``) of the chunks that are not here.

        Raises BadInput when the manifest says another length for a chunk than it has.
        """
        places = self._shelf.places
        numbers: list[int] = []
        for number, (digest, length) in enumerate(manifest.distinct_chunks()):
            place = places.get(digest)
            if place is None:
                numbers.append(number)
            elif place.raw != length:
                raise BadInput(f"expected {place.raw} bytes for chunk {digest.hex()[:16]}, and {length} are claimed")
        return numbers

    def hold(self, manifest: Manifest) -> Hold:
        """Keep what is here, and what comes, of a version until the hold is released."""
        digests = frozenset(digest for digest, _length in manifest.distinct_chunks())
        with self._shelf.lock:
            hold = Hold(self.missing(manifest), digests, self._release)
            self._holds.append(hold)
        return hold

    def writer(self) -> PackWriter:
        """A context manager to add chunks with; they can be read once it is left."""
        return PackWriter(self._shelf, self._pack_size)

    def read(self, digest: bytes) -> bytes:
        """The verified bytes of a chunk.

        Raises Damaged, naming it, when it is not what it should be: it is then forgotten. Raises Unavailable when it
        is not here.
        """
        pack, place = self._find(digest)
        try:
            codec, packed = _frame(pack, place, digest)
            return bytes(self._unpacker.unpack(digest, codec, place.raw, packed))
        except Damaged as error:
            self._forget(error, pack, place)
            raise

    def check(self, digest: bytes) -> bool:
        """Whether the chunk is here and good; a damaged one is forgotten, and the log names it."""
        try:
            self.read(digest)
        except (Damaged, Unavailable):
            return False
        return True

    def verify(self, progress: Callable[[int, int], None] = lambda _done, _all: None) -> list[bytes]:
        """Read every chunk; the digests of the damaged ones, now forgotten. ``progress(done, all)`` counts bytes."""
        with self._shelf.lock:
            places = sorted(self._shelf.places.items(), key=lambda item: (item[1].pack, item[1].offset))
        total, done = sum(place.length for _digest, place in places), 0
        damaged: list[bytes] = []
        for digest, place in places:
            if self.has(digest) and not self.check(digest) and not self.has(digest):
                damaged.append(digest)
            done += place.length
            progress(done, total)
        return damaged

    def frames(self, digests: Iterable[bytes]) -> list[Extent]:
        """The CHUNK frames of these chunks, each once, in the order in which they lie; neighbours are joined.

        Raises Unavailable when one is not here. The bytes are not verified: who gets them does that.
        """
        with self._shelf.lock:
            found = [self._place(digest) for digest in set(digests)]
            opened = {pack: self._shelf.open(pack) for pack in {place.pack for place in found}}
        found.sort(key=lambda place: (place.pack, place.offset))
        extents: list[Extent] = []
        start = end = pack = -1
        for place in found:
            if place.pack != pack or place.offset != end:
                if pack >= 0:
                    extents.append(Extent(opened[pack], start, end - start))
                pack, start = place.pack, place.offset
            end = place.offset + place.length
        if pack >= 0:
            extents.append(Extent(opened[pack], start, end - start))
        return extents

    def collect(self, keep: Container[bytes], spare_since: float = float("inf")) -> Collected:
        """Remove packs that hold nothing to keep, and rewrite those that are mostly garbage, or small and many.

        Each publication makes a pack, however little it brings: without the latter there were as many in the end as a
        tree has files, and whoever copies the tree would have them all open at once.
        ``keep`` are the digests of all versions that stay; what a :class:`Hold` covers stays too. Packs written since
        ``spare_since`` (seconds since the Unix epoch, by the wall clock) are left alone: an interrupted upload may be
        taken up again. Streams that are being sent are not disturbed.
        """
        with self._collecting:
            return self._collect(keep, spare_since)

    def _collect(self, keep: Container[bytes], spare_since: float) -> Collected:
        with self._shelf.lock:
            sizes = self._shelf.sizes
            held = self._held()
            by_pack: dict[int, dict[bytes, Place]] = {pack: {} for pack in sizes}
            for digest, place in self._shelf.places.items():
                by_pack[place.pack][digest] = place
        empty: list[int] = []
        rewritten: list[int] = []
        alike: dict[int, list[int]] = {}
        by_pack = {pack: places for pack, places in by_pack.items() if self._written(pack) < spare_since}
        for pack, places in by_pack.items():
            kept = by_pack[pack] = {digest: at for digest, at in places.items() if digest in keep or digest in held}
            if not kept:
                empty.append(pack)
            elif 2 * sum(place.length for place in kept.values()) < sizes[pack]:
                rewritten.append(pack)
            elif sizes[pack] < _SMALL:
                alike.setdefault(sizes[pack].bit_length() // 3, []).append(pack)
        rewritten += [pack for packs in alike.values() if len(packs) >= _MANY for pack in packs]
        self._rewrite({digest: at for pack in rewritten for digest, at in by_pack[pack].items()})
        return self._remove(empty, rewritten, keep, sizes)

    def _rewrite(self, kept: dict[bytes, Place]) -> None:
        with self.writer() as writer:
            for digest, place in sorted(kept.items(), key=lambda item: (item[1].pack, item[1].offset)):
                pack = self._shelf.open(place.pack)
                try:
                    codec, packed = _frame(pack, place, digest)
                    self._unpacker.unpack(digest, codec, place.raw, packed)
                except Damaged as error:
                    self._forget(error, pack, place)
                    continue
                writer.put_verified(digest, codec, place.raw, packed, again=True)

    def _remove(
        self, empty: list[int], rewritten: list[int], keep: Container[bytes], sizes: Mapping[int, int]
    ) -> Collected:
        with self._shelf.lock:
            # Holds that began since then have counted on what is still here: a pack with any of that stays.
            held = self._held()
            wanted = {at.pack for digest, at in self._shelf.places.items() if digest in held or digest in keep}
            gone = [pack for pack in (*empty, *rewritten) if pack not in wanted]
            self._shelf.remove(gone)
        return Collected(len(gone), len(rewritten), sum(sizes[pack] for pack in gone))

    def _held(self) -> set[bytes]:
        return set().union(*(hold.digests for hold in self._holds))

    def _release(self, hold: Hold) -> None:
        with self._shelf.lock:
            if hold in self._holds:
                self._holds.remove(hold)

    def _written(self, pack: int) -> float:
        try:
            return self._shelf.path(pack).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _place(self, digest: bytes) -> Place:
        place = self._shelf.places.get(digest)
        if place is None:
            raise Unavailable(
                f"chunk {digest.hex()[:16]} is not in {self._shelf.directory}: publish the version that has it again"
            )
        return place

    def _find(self, digest: bytes) -> tuple[OpenPack, Place]:
        with self._shelf.lock:
            place = self._place(digest)
            return self._shelf.open(place.pack), place

    def _forget(self, error: Damaged, pack: OpenPack, place: Place) -> None:
        self.log.error(
            "{error}, at byte {offset} of {pack}: forgotten until a publication brings it again",
            error=error, offset=place.offset, pack=pack.path,
        )  # fmt: skip
        try:
            self._shelf.forget(error.digest, place)
        except LocalError as failed:
            # It is forgotten until the next start at least, which would find it damaged once more.
            self.log.warn(
                "that chunk {digest} is damaged cannot be noted: {why}", digest=error.digest.hex(), why=failed
            )


def _frame(pack: OpenPack, place: Place, digest: bytes) -> tuple[str, memoryview]:
    try:
        data = os.pread(pack.fd, place.length, place.offset)
    except OSError as error:
        raise Damaged(digest, f"the disk cannot read it ({error.strerror})") from error
    head = read_head(data)
    if head is None or head.digest != digest or head.frame_length != place.length or len(data) != place.length:
        raise Damaged(digest, "its frame is not where it was written")
    return head.codec, memoryview(data)[head.body : -1]
