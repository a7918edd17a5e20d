"""A store of sessions in a dict: its clock is moved by the test, and it fails when the test wants it to.

Several stores may share one database, as the nodes of a farm do: ``MemoryStore(database)``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import attrs

from farmsyncd.core.session.faults import SessionError, StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Listed, Row, Same, Stats, Store, Written


@attrs.frozen
class _Kept:
    version: int
    state: bytes
    created_us: int
    changed_us: int
    idle_expires_us: int
    absolute_expires_us: int

    @property
    def expires_us(self) -> int:
        return min(self.idle_expires_us, self.absolute_expires_us)

    def row(self, now_us: int) -> Row:
        return Row(self.version, self.state, self.idle_expires_us - now_us, self.absolute_expires_us - now_us)

    def same(self, now_us: int) -> Same:
        return Same(self.idle_expires_us - now_us, self.absolute_expires_us - now_us)

    def written(self, now_us: int) -> Written:
        return Written(self.version, self.idle_expires_us - now_us, self.absolute_expires_us - now_us)

    def listed(self, digest: bytes) -> Listed:
        return Listed(
            *(digest, self.version, len(self.state), self.created_us, self.changed_us),
            *(self.idle_expires_us, self.absolute_expires_us),
        )


@attrs.define(eq=False)
class MemoryDatabase:
    """What all stores of one farm share. The test moves ``now_us``, the database's clock.

    ``being_swept`` says that another process is removing expired rows.
    """

    now_us: int = 1_800_000_000_000_000
    being_swept: bool = False
    rows: dict[bytes, _Kept] = attrs.Factory(dict)
    changes: int = 0
    listeners: list[Callable[[bytes | None], None]] = attrs.Factory(list)
    lock: threading.RLock = attrs.Factory(threading.RLock)

    def pass_s(self, seconds: float) -> None:
        """Let time pass by the database's clock."""
        self.now_us += round(seconds * 1_000_000)

    def living(self, digest: bytes) -> _Kept | None:
        """The row, if it is there and has not expired."""
        kept = self.rows.get(digest)
        return None if kept is None or kept.expires_us <= self.now_us else kept

    def put(self, digest: bytes, kept: _Kept) -> Written:
        """Store a row."""
        self.rows[digest] = kept
        self.changes += 1
        return kept.written(self.now_us)

    def news(self, digest: bytes | None) -> None:
        """Tell all who listen; a test calls it with None for a connection that was lost and came back."""
        for ended in list(self.listeners):
            ended(digest)


@attrs.define(eq=False)
class MemoryStore:
    """One node's access to a :class:`MemoryDatabase`.

    ``away``: every call raises StoreUnavailable, and nothing is done. ``lose_answers``: so many of the next writes
    (create, write, rotate, delete) are done, and raise StoreUnavailable all the same. ``calls`` counts by method name,
    failed ones too. ``before`` is called with the method's name before each call, to come in between. With ``exact``,
    ``generation`` is a number, as SQLite's is; without, None, as PostgreSQL's. With ``news_arrive`` False, ends of
    sessions are not told to this node.
    """

    database: MemoryDatabase = attrs.Factory(MemoryDatabase)
    exact: bool = attrs.field(default=False, kw_only=True)
    news_arrive: bool = attrs.field(default=True, kw_only=True)
    away: bool = False
    lose_answers: int = 0
    before: Callable[[str], None] = attrs.field(default=lambda _name: None)
    calls: Counter[str] = attrs.Factory(Counter)
    closed: bool = False
    _listening: list[Callable[[bytes | None], None]] = attrs.Factory(list)

    def _begin(self, name: str) -> None:
        with self.database.lock:
            self.calls[name] += 1
        self.before(name)
        if self.away:
            raise StoreUnavailable("expected the sessions' database to answer, and the test has taken it away")

    def _end(self) -> None:
        """After a write that was done."""
        with self.database.lock:
            lost = self.lose_answers > 0
            self.lose_answers -= lost
        if lost:
            raise StoreUnavailable("expected an answer from the sessions' database, and the test has lost it")

    def _must_be_new(self, digest: bytes) -> None:
        if digest in self.database.rows:
            raise SessionError("expected the id of a new session to be new, and it was used before")

    def prepare(self) -> None:
        self._begin("prepare")

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        self._begin("create")
        with self.database.lock:
            self._must_be_new(digest)
            now = self.database.now_us
            kept = _Kept(1, state, now, now, now + life.idle_us, now + life.absolute_us)
            written = self.database.put(digest, kept)
        self._end()
        return written

    def read(self, digest: bytes) -> Row | None:
        self._begin("read")
        with self.database.lock:
            kept = self.database.living(digest)
            return None if kept is None else kept.row(self.database.now_us)

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        self._begin("revalidate")
        with self.database.lock:
            kept = self.database.living(digest)
            if kept is None:
                return None
            return kept.same(self.database.now_us) if kept.version == version else kept.row(self.database.now_us)

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin("write")
        return self._replace(digest, version, digest, state, life)

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin("rotate")
        with self.database.lock:
            self._must_be_new(new)
        return self._replace(old, version, new, state, life)

    def _replace(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        with self.database.lock:
            kept, now = self.database.living(old), self.database.now_us
            if kept is None:
                return None
            if kept.version != version:
                return kept.row(now)
            del self.database.rows[old]
            written = self.database.put(
                new,
                attrs.evolve(
                    kept, version=version + 1, state=state, changed_us=now, idle_expires_us=now + life.idle_us
                ),
            )
        if old != new:
            self.database.news(old)
        self._end()
        return written

    def delete(self, digest: bytes) -> bool:
        self._begin("delete")
        with self.database.lock:
            there = self.database.living(digest) is not None
            if there:
                del self.database.rows[digest]
                self.database.changes += 1
        if there:
            self.database.news(digest)
            self._end()
        return there

    def sweep(self, limit: int) -> int | None:
        self._begin("sweep")
        with self.database.lock:
            if self.database.being_swept:
                return None
            expired = [digest for digest in self.database.rows if self.database.living(digest) is None][:limit]
            for digest in expired:
                del self.database.rows[digest]
            self.database.changes += bool(expired)
            return len(expired)

    def find(self, prefix: bytes, limit: int) -> list[Listed]:
        self._begin("find")
        with self.database.lock:
            found = [
                kept.listed(digest)
                for digest in self.database.rows
                if digest.startswith(prefix) and (kept := self.database.living(digest)) is not None
            ]
        return sorted(found, key=lambda one: (-one.changed_us, one.digest))[:limit]

    def stats(self) -> Stats:
        self._begin("stats")
        with self.database.lock:
            live = [kept for digest in self.database.rows if (kept := self.database.living(digest)) is not None]
            sizes = [len(kept.state) for kept in live]
            return Stats(
                *(len(live), len(self.database.rows) - len(live), sum(sizes), max(sizes, default=0)),
                min((kept.created_us for kept in live), default=None),
            )

    def generation(self) -> int | None:
        return self.database.changes if self.exact else None

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        if self.news_arrive:
            self._listening.append(ended)
            self.database.listeners.append(ended)

    def close(self) -> None:
        for ended in self._listening:
            self.database.listeners.remove(ended)
        self._listening.clear()
        self.closed = True


def conforms(store: MemoryStore) -> Store:
    """Where mypy sees that this is a Store."""
    return store
