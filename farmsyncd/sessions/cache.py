"""The copies of sessions that one process holds: bounded in entries and bytes, the least recently used go first.

A copy is what the database answered once. Two threads may fill the cache at the same time, and a session may end while
an answer about it is on its way. So whoever asks the database takes a ticket first; an answer is not kept when the
session has been forgotten since the ticket was taken, and an older version never takes the place of a newer one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import attrs

OVERHEAD_BYTES = 480  # what a copy costs beside its state: the object, its numbers, its digest and its place; measured
_REMEMBERED_ENDS = 1024


@attrs.frozen(weakref_slot=False)
class Copy:
    """A session as the database had it. Instants are seconds of the process's monotonic clock.

    ``checked_s`` is the instant *before* the question that this answers, ``generation`` the store's then; ``until_s``
    is when the session expires, and from ``touch_from_s`` on a request that uses it makes it live longer.
    """

    digest: bytes
    version: int
    state: bytes
    checked_s: float
    generation: int | None
    until_s: float
    touch_from_s: float


class SessionCache:
    """Copies by digest. May be used from any thread."""

    def __init__(self, limit_entries: int, limit_bytes: int) -> None:
        self._limit_entries = limit_entries
        self._limit_bytes = limit_bytes
        self.bytes = 0
        self.lookups = 0
        self.renew()

    def renew(self) -> None:
        """Begin empty, in a process that was just forked: another thread may have held the lock."""
        self._lock = threading.Lock()
        self._copies: OrderedDict[bytes, Copy] = OrderedDict()
        self._ends: OrderedDict[bytes, int] = OrderedDict()
        self._sequence = 0
        self._floor = 0
        self.bytes = 0

    @property
    def entries(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    def get(self, digest: bytes) -> Copy | None:
        """The copy, which becomes the most recently used."""
        with self._lock:
            self.lookups += 1
            copy = self._copies.get(digest)
            if copy is not None:
                self._copies.move_to_end(digest)
            return copy

    def peek(self, digest: bytes) -> Copy | None:
        """The copy, whether it can be trusted or not; nothing is counted."""
        return self._copies.get(digest)

    def ticket(self) -> int:
        """To be taken before the database is asked, and handed to :meth:`put` with its answer."""
        return self._sequence

    def put(self, copy: Copy, ticket: int, seen: Copy | None = None) -> None:
        """Keep what the database answered.

        ``seen`` is the copy that was here when the ticket was taken: the answer is newer than that one, even if its
        version is lower, as it is in a database that was restored from a backup.
        """
        cost = len(copy.state) + OVERHEAD_BYTES
        with self._lock:
            if ticket < self._floor or self._ends.get(copy.digest, 0) > ticket:
                return
            there = self._copies.get(copy.digest)
            if there is not None:
                if there is not seen and (there.version, there.checked_s) > (copy.version, copy.checked_s):
                    return
                self.bytes -= len(there.state) + OVERHEAD_BYTES
                del self._copies[copy.digest]
            if cost > self._limit_bytes:
                return
            self._copies[copy.digest] = copy
            self.bytes += cost
            while self.bytes > self._limit_bytes or len(self._copies) > self._limit_entries:
                _digest, out = self._copies.popitem(last=False)
                self.bytes -= len(out.state) + OVERHEAD_BYTES

    def forget(self, digest: bytes | None) -> None:
        """Drop a session that has ended, or of which it is not known what it is now; None: each one.

        Answers to questions that were asked before are not kept either.
        """
        with self._lock:
            self._sequence += 1
            if digest is None:
                self._floor = self._sequence
                self._ends.clear()
                self._copies.clear()
                self.bytes = 0
                return
            out = self._copies.pop(digest, None)
            if out is not None:
                self.bytes -= len(out.state) + OVERHEAD_BYTES
            self._ends[digest] = self._sequence
            self._ends.move_to_end(digest)
            if len(self._ends) > _REMEMBERED_ENDS:
                _digest, self._floor = self._ends.popitem(last=False)


def short(digest: bytes) -> str:
    """What logs know a session by."""
    return digest.hex()[:12]
