"""Pipes for splicing: made when needed, kept for the next, and never more than so many."""

from __future__ import annotations

import contextlib
import fcntl
import os

import attrs

_LEAST = 1 << 16
_SPARE = 32


@attrs.define(eq=False)
class Pipe:
    """A pipe's two ends."""

    reading: int
    writing: int

    def close(self) -> None:
        """Close both ends; what is inside is gone."""
        os.close(self.reading)
        os.close(self.writing)


class PipePool:
    """At most ``most`` pipes, of ``size`` bytes if the kernel grants it.

    A user without privileges gets pipes of 8 KiB beyond his 1,023rd or so: with those, copying is better, and none is
    given out.
    """

    def __init__(self, most: int, size: int) -> None:
        self._most = most
        self._size = size
        self._made = 0
        self._spare: list[Pipe] = []

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
        with contextlib.suppress(OSError):  # not granted: it stays as it is
            fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, self._size)
        if fcntl.fcntl(pipe.writing, fcntl.F_GETPIPE_SZ) < min(_LEAST, self._size):
            pipe.close()
            return None
        self._made += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """It is empty, and may serve another."""
        if len(self._spare) < _SPARE:
            self._spare.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close it, with what is in it."""
        self._made -= 1
        pipe.close()

    def close(self) -> None:
        """Close the spare ones."""
        while self._spare:
            self.discard(self._spare.pop())
