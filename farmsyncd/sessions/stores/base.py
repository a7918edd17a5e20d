"""What a store of sessions does: the one interface of all databases.

A row is the truth about a session. It is found by the digest of the id, never by the id. Each write is conditional on
the version that it was based on, so that nobody overwrites what they have not seen; rows are made only by ``create``
and ``rotate``, so that what was deleted or has expired stays gone. A session that has expired (by the *database's*
clock) is treated by every method as if there were no row.

Each method is one round trip to the database (a write that comes too late needs a second one, to see who was first),
commits before it returns, may be called from any thread and after a fork, and raises StoreUnavailable when the database
cannot be reached or does not answer in time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs

CENTURY_US: Final = 100 * 365 * 86_400 * 1_000_000


def _at_most_a_century(duration_us: int) -> int:
    return min(duration_us, CENTURY_US)


@attrs.frozen
class Lifetime:
    """How long a session lives: ``idle_us`` after its last write or touch, ``absolute_us`` after its creation.

    More than a century is taken for a century, which every database can count.
    """

    idle_us: int = attrs.field(converter=_at_most_a_century)
    absolute_us: int = attrs.field(converter=_at_most_a_century)

    @property
    def grain_us(self) -> int:
        """How coarsely the instant after which a row may be swept is kept: a hundredth of the idle time.

        So most writes leave that instant as it is, and the index over it is not written each time.
        """
        return max(self.idle_us // 100, 1)


@attrs.frozen
class Row:
    """A session that lives, as the database had it at one instant.

    ``idle_left_us`` and ``absolute_left_us`` are what is left of its life by the database's clock: how far the node's
    own clock is wrong does not matter. The session ends when the first of them is over; a touch renews the idle one
    alone, which may so be the longer one. ``state`` is opaque to the store.
    """

    version: int
    state: bytes
    idle_left_us: int
    absolute_left_us: int


@attrs.frozen
class Written:
    """What was asked has been written and is durable; the row has this ``version`` now."""

    version: int
    idle_left_us: int
    absolute_left_us: int


@attrs.frozen
class Same:
    """The row is still of the version that was asked about."""

    idle_left_us: int
    absolute_left_us: int


@attrs.frozen
class Listed:
    """A session as operators see it: by its digest. Times are microseconds since the Unix epoch, the database's."""

    digest: bytes
    version: int
    size: int
    created_us: int
    changed_us: int
    idle_expires_us: int
    absolute_expires_us: int


@attrs.frozen
class Stats:
    """All sessions of a store: how many live, how many have expired and wait to be removed, and their bytes."""

    live: int
    expired: int
    state_bytes: int
    largest_bytes: int
    oldest_created_us: int | None


def beyond(prefix: bytes) -> bytes | None:
    """The least digest after all that begin with ``prefix``; None when there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


class Store(Protocol):
    """A database of sessions. ``digest`` is the SHA-256 of the id: 32 bytes."""

    def prepare(self) -> None:
        """Bring the tables to where this farmsync wants them; raises WrongSchema, StoreUnavailable."""

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        """Insert a session of version 1."""

    def read(self, digest: bytes) -> Row | None:
        """The session, or None when there is none that lives."""

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        """Same when the row is still of ``version`` (its state is not sent again), else the row, else None."""

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        """Replace the state of a row that is still of ``version``; the row becomes ``version + 1``.

        Written when it was done. Otherwise nothing was written: the row that another writer left, or None when there
        is no such session (any more). A touch is a write of the same state: it counts a version like any other.
        """

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        """In one transaction, delete a row that is still of ``version`` and insert ``new`` as ``version + 1``.

        The new row keeps the old one's creation and absolute expiry. The answer is as in :meth:`write`.
        """

    def delete(self, digest: bytes) -> bool:
        """End a session; False when there was none."""

    def sweep(self, limit: int) -> int | None:
        """Remove at most ``limit`` expired rows; None when another process is at it. Not more than one is at a time."""

    def find(self, prefix: bytes, limit: int) -> list[Listed]:
        """Live sessions whose digest begins with these bytes, the latest changed first."""

    def stats(self) -> Stats:
        """Count."""

    def generation(self) -> int | None:
        """A number that changes whenever anybody may have changed the database, told without a round trip.

        None when this store cannot tell (a database on another machine, or one that is away): copies are then trusted
        for a while only. Never raises.
        """

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        """Call ``ended(digest)`` from some thread, soon and without a promise, when a session ends somewhere.

        ``ended(None)`` says that such news may have been missed. A store that has no such news does nothing.
        """

    def close(self) -> None:
        """Give back connections and threads; the store is not used again."""
