"""A large file on its way to the disk, which works while the file grows; the memory it passes through is given back.

The kernel keeps what is written in memory, and in most cases that is right. But nobody reads a version before its
time, while what is in memory for the active one is read now; and a page of memory that has long been free may have to
be fetched from the hypervisor first, which takes longer than to write it, just when a new node should soon be of use.
So a large file goes through the same few megabytes of memory again and again.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from farmsyncd.edges.content import durable

WINDOW: Final = 8 * 1024 * 1024
"""Bytes that gather before the disk is set to work. As much again may be waited for."""
LARGE: Final = 64 * 1024 * 1024
"""Bytes of a file from which on it pays to give its memory back."""


class Writeback:
    """One file that gets ``missing`` chunks, more or less in their order. ``passing``: its memory is given back.

    :meth:`wrote` is for any thread.
    """

    def __init__(self, missing: int, *, passing: bool) -> None:
        self._missing = missing
        self._passing = passing
        self._lock = Lock()
        self._dirty = 0
        self._from = self._to = 0
        self._before: tuple[int, int] | None = None

    def wrote(self, fd: int, offset: int, length: int) -> bool:
        """A chunk was written to ``fd``; whether it was the last one."""
        with self._lock:
            self._missing -= 1
            last = not self._missing
            self._from = min(self._from, offset) if self._dirty else offset
            self._to = max(self._to, offset + length) if self._dirty else offset + length
            self._dirty += length
            if not last and self._dirty < WINDOW:
                return False
            window = self._from, self._to - self._from
            before, self._before = self._before, window
            self._dirty = 0
        # The disk works from now on, while the rest of the tree is made; only what is dirty is written.
        durable.start_writing(fd, *window)
        if self._passing and before is not None:
            durable.give_back(fd, *before)
        return last
