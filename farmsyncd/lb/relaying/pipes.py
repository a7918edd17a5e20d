"""Pipes for splicing: made when needed, kept for the next, and never more than so many."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque

import attrs

_LEAST = 1 << 16
_SPARE = 32


@attrs.define(eq=False)
class Pipe:
    """A pipe's two ends."""

    reading: int
    writing: int
    large: bool = False

    def close(self) -> None:
        """Close both ends; what is inside is gone."""
        os.close(self.reading)
        os.close(self.writing)


class PipePool:
    """At most ``most`` pipes. The first ``large`` of them have ``size`` bytes, if the kernel grants it.

    A pipe of 1 MiB takes half the work for each byte that one of 64 KiB takes. The kernel grants a user without
    privileges 64 MiB in all his pipes; beyond, a new one has 8 KiB. With such a pipe copying is better, and it is not
    given out.
    """

    def __init__(self, most: int, large: int, size: int) -> None:
        self._most = most
        self._large = large
        self._size = size
        self._made = 0
        self._enlarged = 0
        self._spare: deque[Pipe] = deque()  # large ones at the right, where they are taken from

    def __len__(self) -> int:
        """How many there are, in use or spare."""
        return self._made

    def take(self) -> Pipe | None:
        """An empty pipe, for :meth:`give_back` or :meth:`discard`; None when there is none to be had."""
        if self._spare:
            return self._spare.pop()
        if self._made >= self._most:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return None
        if fcntl.fcntl(pipe.writing, fcntl.F_GETPIPE_SZ) < _LEAST:
            pipe.close()
            return None
        self._made += 1
        if self._enlarged < self._large:
            with contextlib.suppress(OSError):  # not granted: it stays as it is
                fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, self._size)
                pipe.large = True
                self._enlarged += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """It is empty, and may serve another."""
        if len(self._spare) >= _SPARE:
            self.discard(pipe)
        elif pipe.large:
            self._spare.append(pipe)
        else:
            self._spare.appendleft(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close it, with what is in it."""
        self._made -= 1
        self._enlarged -= pipe.large
        pipe.close()

    def close(self) -> None:
        """Close the spare ones."""
        while self._spare:
            self.discard(self._spare.pop())
