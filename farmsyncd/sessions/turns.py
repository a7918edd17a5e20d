"""Requests of one session that commit at the same time in one process take turns, and do not disturb other sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs


@attrs.define(eq=False)
class _Turn:
    lock: threading.Lock = attrs.Factory(threading.Lock)
    wanted_by: int = 0


class Turns:
    """A lock for each session that is being committed, and for no other.

    It only saves vain attempts: nothing is wrong without it. So nobody waits longer than ``patience_s``.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._turns: dict[bytes, _Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @contextmanager
    def of(self, digest: bytes) -> Iterator[None]:
        """Around a commit of this session."""
        with self._lock:
            turn = self._turns.setdefault(digest, _Turn())
            turn.wanted_by += 1
        mine = turn.lock.acquire(timeout=self._patience_s)
        try:
            yield
        finally:
            if mine:
                turn.lock.release()
            with self._lock:
                turn.wanted_by -= 1
                if not turn.wanted_by:
                    del self._turns[digest]
