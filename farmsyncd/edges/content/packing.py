"""The chunks of a tree that was read, packed: for a store on this machine, or for the wire.

A few threads read and pack ahead of whoever takes the chunks, never by more than a bounded number of bytes. Each chunk
is compared with its digest once more, for a file may have changed since it was read first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import attrs

from farmsyncd.core.chunkframes import frame_head
from farmsyncd.core.chunks import Buffer, Packer, digest_of
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content.filereading import FLAGS
from farmsyncd.edges.content.packwriter import PackWriter
from farmsyncd.edges.content.tree import Scanned, spelled, thread_count, under
from farmsyncd.errors import BadInput

_BATCH_BYTES: Final = 2 * 1024 * 1024
_BATCH_CHUNKS: Final = 64


@attrs.frozen
class PackedChunk:
    """A chunk as it is stored and sent; ``length`` is that of its bytes once unpacked."""

    digest: bytes
    codec: str
    length: int
    packed: Buffer = attrs.field(repr=False)

    def frame(self) -> bytes:
        """The CHUNK message of this chunk, as it travels."""
        return b"".join((frame_head(self.digest, self.codec, self.length, len(self.packed)), self.packed, b","))


@attrs.frozen
class _Piece:
    """Where a chunk is to be read from."""

    path: bytes
    offset: int
    length: int
    digest: bytes


class _Packing:
    """Reads and packs pieces of the tree at ``root``, in many threads."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._packer = Packer()

    def pack(self, pieces: list[_Piece]) -> list[PackedChunk]:
        """These pieces, packed. Raises _Moved for the first that is not what it was."""
        chunks: list[PackedChunk] = []
        fd, opened = -1, None
        try:
            for piece in pieces:
                if piece.path != opened:
                    if fd >= 0:
                        os.close(fd)
                        fd = -1
                    fd, opened = os.open(under(self._root, piece.path), FLAGS), piece.path
                data = os.pread(fd, piece.length, piece.offset)
                if digest_of(data) != piece.digest:
                    raise _Moved(piece.path, "it changed after it was read; publish a copy that is at rest")
                codec, packed = self._packer.pack(data)
                chunks.append(PackedChunk(piece.digest, codec, piece.length, packed))
        except OSError as error:
            raise _Moved(piece.path, f"it cannot be read any more: {error.strerror}") from error
        finally:
            if fd >= 0:
                os.close(fd)
        return chunks


class _Moved(Exception):
    """The file at ``path`` (the first argument) is not what was read; the second says how."""


def packed_chunks(scanned: Scanned, numbers: Iterable[int], threads: int | None = None) -> Iterator[PackedChunk]:
    """The chunks with these numbers in the tree's manifest, packed, in the order in which the tree has them.

    Raises BadInput naming the file that is another by now.
    """
    count = threads or thread_count()
    packing = _Packing(scanned.root)
    with ThreadPoolExecutor(count, "packing") as pool:
        ahead: deque[Future[list[PackedChunk]]] = deque()
        try:
            for pieces in _batches(scanned.manifest, set(numbers)):
                ahead.append(pool.submit(packing.pack, pieces))
                if len(ahead) > 2 * count:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        except _Moved as moved:
            path, how = moved.args
            if scanned.cache is not None:
                scanned.cache.forget(path)
            raise BadInput(f"{spelled(scanned.root)} cannot be published: {spelled(path)}: {how}") from moved
        finally:
            # Whoever stops taking chunks does not wait for those that were still ahead.
            for future in ahead:
                future.cancel()


def store_chunks(scanned: Scanned, numbers: Iterable[int], writer: PackWriter) -> int:
    """Put the chunks with these numbers into a store on this machine; their bytes, unpacked."""
    total = 0
    for chunk in packed_chunks(scanned, numbers):
        if writer.put_verified(chunk.digest, chunk.codec, chunk.length, chunk.packed):
            total += chunk.length
    return total


def _batches(manifest: Manifest, numbers: set[int]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    size = 0
    for number, piece in enumerate(_pieces(manifest)):
        if number not in numbers:
            continue
        batch.append(piece)
        size += piece.length
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_CHUNKS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(manifest: Manifest) -> Iterator[_Piece]:
    """One place for each distinct chunk, in the order of ``manifest.distinct_chunks()``."""
    seen: set[bytes] = set()
    for entry in manifest.entries:
        offset = 0
        for digest, length in zip(entry.chunks, entry.lengths, strict=True):
            if digest not in seen:
                seen.add(digest)
                yield _Piece(entry.path, offset, length, digest)
            offset += length
