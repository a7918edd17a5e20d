"""Adding chunks to a store: one upload or publication fills one pack, or a few when it is large.

The chunks of a writer can be read by nobody until the pack they are in is durable. A writer that is left by an
exception, an upload whose connection broke, keeps the whole chunks that came: the next upload need not send them again.
Only a full disk makes it give back what its unfinished pack took.
"""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType
from typing import Final, Self

import attrs

from farmsyncd.core.chunkframes import frame_head
from farmsyncd.core.chunks import Buffer, Unpacker
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.packindex import Place
from farmsyncd.edges.content.shelf import Shelf
from farmsyncd.errors import LocalError

PACK_SIZE: Final = 512 * 1024 * 1024
"""Bytes after which a writer goes on in another pack: what clearing away has to rewrite at once."""
_BUFFERED: Final = 4 * 1024 * 1024


@attrs.define
class _Pack:
    """A pack that is being written: its places are those on disk or waiting in the buffer."""

    number: int
    fd: int
    size: int = 0
    places: dict[bytes, Place] = attrs.Factory(dict)


class PackWriter:
    """Adds chunks to the packs of ``shelf``; a context manager, durable once it is left. Safe for use by many threads.

    Every method that writes raises Unavailable when the disk is full, and LocalError when it fails otherwise; the
    writer then takes no more.
    """

    def __init__(self, shelf: Shelf, pack_size: int = PACK_SIZE) -> None:
        self._shelf = shelf
        self._pack_size = pack_size
        self._lock = threading.Lock()
        self._unpacker = Unpacker()
        self._pack: _Pack | None = None
        self._waiting: list[Buffer] = []
        self._waiting_bytes = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, digest: bytes, codec: str, length: int, packed: Buffer) -> bool:
        """Add a chunk as it came from elsewhere, once it is verified; False when it is here already.

        Raises Damaged when the bytes are not what ``digest`` and ``length`` say.
        """
        if self.has(digest):
            return False
        self._unpacker.unpack(digest, codec, length, packed)
        return self.put_verified(digest, codec, length, packed)

    def put_verified(self, digest: bytes, codec: str, length: int, packed: Buffer, again: bool = False) -> bool:
        """The same for a chunk that the caller knows to be right; ``again`` although the store has it elsewhere."""
        with self._lock:
            if self._closed:
                raise LocalError("expected an open pack, and its writer has been closed")
            if not again and self.has(digest):
                return False
            pack = self._pack if self._pack is not None else self._begin()
            head = frame_head(digest, codec, length, len(packed))
            size = len(head) + len(packed) + 1
            # Bytes are kept by reference; anything that its owner may change is copied before it waits.
            self._waiting += (head, packed if isinstance(packed, bytes) else bytes(packed), b",")
            self._waiting_bytes += size
            pack.places[digest] = Place(pack.number, pack.size, size, length)
            pack.size += size
            if self._waiting_bytes >= _BUFFERED:
                self._flush(pack)
            if pack.size >= self._pack_size:
                self._finish(pack)
            return True

    def has(self, digest: bytes) -> bool:
        """Whether this writer, or the store, has the chunk."""
        pack = self._pack
        return digest in self._shelf.places or (pack is not None and digest in pack.places)

    def close(self) -> None:
        """Make all that was put durable, and let others read it. Closing again does nothing."""
        with self._lock:
            self._closed = True
            if self._pack is not None:
                self._flush(self._pack)
                self._finish(self._pack)

    def _begin(self) -> _Pack:
        number = self._shelf.take_number()
        path = self._shelf.path(number)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._closed = True
            raise durable.failure(error, "writing", path) from error
        self._pack = _Pack(number, fd)
        return self._pack

    def _flush(self, pack: _Pack) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        try:
            wrote = durable.write_all(pack.fd, waiting)
            durable.start_writing(pack.fd, pack.size - wrote, wrote)
        except OSError as error:
            self._discard(pack)
            raise durable.failure(error, "writing", self._shelf.path(pack.number)) from error

    def _finish(self, pack: _Pack) -> None:
        if self._waiting:
            self._flush(pack)
        try:
            os.fsync(pack.fd)
            self._shelf.add(pack.number, pack.size, pack.places)
        except (OSError, LocalError) as error:
            self._discard(pack)
            if isinstance(error, LocalError):
                raise
            raise durable.failure(error, "writing", self._shelf.path(pack.number)) from error
        self._pack = None
        os.close(pack.fd)

    def _discard(self, pack: _Pack) -> None:
        self._closed = True
        self._pack = None
        self._waiting = []
        with contextlib.suppress(OSError):
            self._shelf.path(pack.number).unlink(missing_ok=True)
        os.close(pack.fd)
