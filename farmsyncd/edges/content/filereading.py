"""Reading one file into its chunks, and noticing when it does not hold still meanwhile."""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import Final

import attrs

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.cutting import MAX_CHUNK, Cutter, Cutting

_ATTEMPTS: Final = 4
_WINDOW: Final = 4 * MAX_CHUNK
FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a source's file is opened: one that became a link or a pipe meanwhile is not to be followed or waited for."""


class Changed(Exception):
    """The file was another at the end of reading than at its beginning."""


@attrs.frozen
class Read:
    """A file that was read: its state, and the digests and lengths of its chunks."""

    found: os.stat_result
    chunks: tuple[bytes, ...]
    lengths: tuple[int, ...]


class FileReader:
    """Reads files, cut as ``cutting`` says. Safe for use by many threads."""

    def __init__(self, cutting: Cutting) -> None:
        self._cutting = cutting
        self._thread = threading.local()

    def read(self, path: bytes) -> Read:
        """Read the file at ``path``; again, a few times, if it changes. Raises Changed or OSError."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return self._read_once(path)
            except Changed:
                time.sleep(0.02 * (attempt + 1))
        return self._read_once(path)

    def _read_once(self, path: bytes) -> Read:
        fd = os.open(path, FLAGS)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Changed
            if found.st_size <= self._cutting.whole:
                data = os.read(fd, found.st_size + 1)
                chunks, lengths = self._whole(data)
            else:
                chunks, lengths = self._cut(fd)
            if sum(lengths) != found.st_size or _state(os.fstat(fd)) != _state(found):
                raise Changed
        finally:
            os.close(fd)
        return Read(found, chunks, lengths)

    def _whole(self, data: bytes) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        return ((digest_of(data),), (len(data),)) if data else ((), ())

    def _cut(self, fd: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        window: bytearray | None = getattr(self._thread, "window", None)
        if window is None:
            window = self._thread.window = bytearray(_WINDOW)
        view = memoryview(window)
        cutter = Cutter(self._cutting)
        digests: list[bytes] = []
        lengths: list[int] = []
        held = 0  # bytes at the window's start that no chunk has taken yet
        last = False
        while not last:
            while held < _WINDOW and not last:
                got = os.readv(fd, [view[held:]])
                held += got
                last = got == 0
            at = 0
            for length in cutter.cut(view[:held], last):
                digests.append(digest_of(view[at : at + length]))
                lengths.append(length)
                at += length
            held -= at
            view[:held] = view[at : at + held]
        return tuple(digests), tuple(lengths)


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
