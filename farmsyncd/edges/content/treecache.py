"""What a tree's files were when they were read last, so that publishing it again reads only those that changed.

A file counts as unchanged while its device, inode, size, modification time and change time are as they were. One that
had been changed just before it was read is not remembered: a further change could have left the same times.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

import attrs
import blake3
import msgspec

from farmsyncd.core.cutting import Cutting

_FORMAT: Final = "farmsync-tree-cache-1"
_SUM_SIZE: Final = 32
_SETTLED_NS: Final = 2 * 10**9
"""How long ago a change must be for the file's times to tell it from a later one: FAT counts in steps of 2 s."""


class Known(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file as it was read: what identifies its state, and its chunks."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    chunks: tuple[bytes, ...]
    lengths: tuple[int, ...]


class _Kept(msgspec.Struct, array_like=True):
    format: str
    root: bytes
    cutting: Cutting
    files: dict[bytes, Known]


@attrs.define
class TreeCache:
    """The remembered files of one tree, in ``file``. For one thread.

    What cannot be read is forgotten, and what cannot be written is not kept: a cache only ever saves time.
    """

    file: Path
    now_ns: Callable[[], int] = time.time_ns
    _kept: _Kept | None = None

    @classmethod
    def of(cls, directory: Path, root: Path) -> TreeCache:
        """The cache for the tree ``root``, among those in ``directory``."""
        return cls(directory / blake3.blake3(os.fsencode(root.resolve())).hexdigest(16))

    def begin(self, root: bytes, cutting: Cutting) -> None:
        """Look up what is known of the tree at ``root`` when cut like this."""
        kept = self._read()
        if kept is None or kept.root != root or kept.cutting != cutting:
            kept = _Kept(_FORMAT, root, cutting, {})
        self._kept = kept

    def get(self, path: bytes, found: os.stat_result) -> Known | None:
        """What is known of the file ``path`` in its present state, or None."""
        known = self._kept.files.get(path) if self._kept is not None else None
        if known is None or _state(known) != _stated(found):
            return None
        return known

    def put(self, path: bytes, found: os.stat_result, chunks: tuple[bytes, ...], lengths: tuple[int, ...]) -> None:
        """Remember a file that was read, in the state in which it was."""
        if self._kept is not None and self.now_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
            self._kept.files[path] = Known(*_stated(found), chunks, lengths)

    def forget(self, path: bytes) -> None:
        """Forget a file that turned out to be another than was remembered; saves."""
        if self._kept is not None and self._kept.files.pop(path, None) is not None:
            self.save()

    def save(self, only: Container[bytes] | None = None) -> None:
        """Keep what is known for the next time, of the paths in ``only`` if that is given."""
        if self._kept is None:
            return
        if only is not None:
            self._kept.files = {path: known for path, known in self._kept.files.items() if path in only}
        body = msgspec.msgpack.encode(self._kept)
        temporary = self.file.with_name(f"{self.file.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.write_bytes(body + blake3.blake3(body).digest())
            temporary.replace(self.file)

    def _read(self) -> _Kept | None:
        try:
            data = self.file.read_bytes()
            body = memoryview(data)[:-_SUM_SIZE]
            if blake3.blake3(body).digest() != data[-_SUM_SIZE:]:
                return None
            kept = msgspec.msgpack.decode(body, type=_Kept)
        except (OSError, msgspec.DecodeError):
            return None
        return kept if kept.format == _FORMAT else None


def _state(known: Known) -> tuple[int, int, int, int, int]:
    return known.device, known.inode, known.size, known.mtime_ns, known.ctime_ns


def _stated(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
