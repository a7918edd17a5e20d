"""Sessions in one SQLite file: for one machine, with nothing to install or to run.

Reads and writes have a connection each, so that readers never wait for a writer; both are used in the caller's thread.
The write-ahead log is synced at each commit. The clock is the machine's, which is the database's too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from farmsyncd.core.session.faults import SessionError, StoreUnavailable
from farmsyncd.sessions.stores import sqlite_schema as sql
from farmsyncd.sessions.stores.base import Lifetime, Listed, Row, Same, Stats, Written, beyond
from farmsyncd.sessions.stores.sqlite_file import Connect, Migrations, SqliteFile, connect

TIMEOUT_S: Final = 2.0
_SWEEP_PATIENCE_S: Final = 0.1


def wall_clock_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class SqliteStore:
    """A :class:`farmsyncd.sessions.stores.base.Store` in the file ``path``.

    A call waits at most ``timeout_s`` for other writers. ``clock`` tells microseconds since the Unix epoch. With
    ``creates`` False, a file or a table that is missing is an error and not made.
    """

    def __init__(
        self,
        path: Path,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], int] = wall_clock_us,
        connect: Connect = connect,
        migrations: Migrations = sql.MIGRATIONS,
        *,
        creates: bool = True,
    ) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._reading = SqliteFile(self._path, timeout_s, connect, migrations, creates=creates, writes=False)
        self._writing = SqliteFile(self._path, timeout_s, connect, migrations, creates=creates)

    def __repr__(self) -> str:
        return f"SqliteStore({self._path})"

    def prepare(self) -> None:
        """Create the file or bring it to the newest schema."""
        with self._writing.use(), self._reading.use():
            pass

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        """Insert a session of version 1."""
        with self._writing.transaction() as connection:
            try:
                connection.execute(sql.CREATE, {"now": self._clock(), "digest": digest, "state": state, **_spans(life)})
            except sqlite3.IntegrityError as error:
                raise SessionError("expected the id of a new session to be new, and it was used before") from error
        return Written(1, life.idle_us, life.absolute_us)

    def read(self, digest: bytes) -> Row | None:
        """The session, or None."""
        with self._reading.use() as connection:
            found = connection.execute(sql.READ, {"now": self._clock(), "digest": digest}).fetchone()
        return None if found is None else Row(*found)

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        """Whether the session is still of this version, else the session, or None."""
        values = {"now": self._clock(), "digest": digest, "version": version}
        with self._reading.use() as connection:
            found = connection.execute(sql.REVALIDATE, values).fetchone()
        if found is None:
            return None
        return Same(*found[2:]) if found[1] is None else Row(*found)

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        """Replace the state of a session that is still of this version."""
        return self._replace(digest, version, digest, state, life)

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        """Give a session that is still of this version a new digest and state."""
        return self._replace(old, version, new, state, life)

    def _replace(self, digest: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        values: dict[str, Any] = {"digest": digest, "version": version, "new": new, "state": state, **_spans(life)}
        with self._writing.transaction() as connection:
            values["now"] = self._clock()
            try:
                done = connection.execute(sql.REPLACE, values).fetchall()
            except sqlite3.IntegrityError as error:
                raise SessionError("expected the new id of a session to be new, and it was used before") from error
            if done:
                written = Written(*done[0])
            else:
                found = connection.execute(sql.READ, {"now": values["now"], "digest": digest}).fetchone()
                return None if found is None else Row(*found)
        return written

    def delete(self, digest: bytes) -> bool:
        """End a session."""
        with self._writing.transaction() as connection:
            gone = connection.execute(sql.DELETE, {"now": self._clock(), "digest": digest}).fetchall()
        return gone == [(1,)]

    def sweep(self, limit: int) -> int | None:
        """Remove expired rows; None when others write all the time, who come first."""
        now = self._clock()
        with self._reading.use() as connection:
            if connection.execute(sql.EXPIRED, {"now": now}).fetchone() == (0,):
                return 0
        with contextlib.suppress(StoreUnavailable), self._writing.transaction(_SWEEP_PATIENCE_S) as connection:
            return connection.execute(sql.SWEEP, {"now": now, "limit": limit}).rowcount
        return None

    def find(self, prefix: bytes, limit: int) -> list[Listed]:
        """Live sessions by the beginning of their digest, the latest changed first."""
        values = {"now": self._clock(), "prefix": prefix, "beyond": beyond(prefix), "limit": limit}
        with self._reading.use() as connection:
            return [Listed(*row) for row in connection.execute(sql.FIND, values)]

    def stats(self) -> Stats:
        """Count."""
        with self._reading.use() as connection:
            return Stats(*connection.execute(sql.STATS, {"now": self._clock()}).fetchone())

    def generation(self) -> int:
        """Changes with each commit of another connection, the one that writes for us included; never None."""
        return self._reading.data_version()

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        """Nothing is told: :meth:`generation` is exact."""

    def close(self) -> None:
        """Close the file."""
        self._writing.close()
        self._reading.close()


def _spans(life: Lifetime) -> dict[str, Any]:
    return {"idle": life.idle_us, "absolute": life.absolute_us, "grain": life.grain_us}
