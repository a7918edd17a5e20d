"""Sessions in PostgreSQL: the database of a farm.

Each call is one statement that each connection has prepared, and one transaction. A connection that breaks in the
middle is replaced once: what reads is asked again; what writes is sent again with the same mark, and where it then
changes nothing, the mark in the row tells whether the first one did. Where that cannot be told, StoreUnavailable is
raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import attrs

from farmsyncd.core.session.faults import SessionError, StoreUnavailable, WrongSchema
from farmsyncd.sessions.stores.base import Lifetime, Listed, Row, Same, Stats, Written, beyond
from farmsyncd.sessions.stores.postgres import schema
from farmsyncd.sessions.stores.postgres import statements as sql
from farmsyncd.sessions.stores.postgres.link import Link, Result, Statement, Value
from farmsyncd.sessions.stores.postgres.news import News
from farmsyncd.sessions.stores.postgres.pool import Pool
from farmsyncd.sessions.stores.postgres.target import Target
from farmsyncd.sessions.stores.postgres.trouble import AGAIN, DIFFERENT, FRESH, UNIQUE, Late, Lost, Refused

TIMEOUT_S: Final = 2.0
CONNECTIONS: Final = 8


@attrs.frozen
class _Answer:
    """What came back; ``unsure`` when an earlier try of the same call may have been done too."""

    result: Result
    unsure: bool


@attrs.frozen
class _Marked:
    """A row, and the mark of the write that made it."""

    row: Row
    mark: int


class PostgresStore:
    """A :class:`farmsyncd.sessions.stores.base.Store` in the database that ``url`` names, as libpq understands it.

    A call ends within about ``timeout_s``; connecting anew, which it may have to, takes at most 2 s more. At most
    ``connections`` calls are under way at once, others wait for their turn. ``listen`` takes one connection more.
    With ``creates`` False, tables that are missing are an error and not made.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = TIMEOUT_S,
        connections: int = CONNECTIONS,
        migrations: schema.Migrations = schema.MIGRATIONS,
        *,
        creates: bool = True,
    ) -> None:
        self._target = Target.of(url, timeout_s)
        self._timeout_s = timeout_s
        self._migrations = migrations
        self._creates = creates
        self._pool = Pool(self._link, connections, timeout_s, self._target.shown)
        self._news = News(self._bare_link, sql.CHANNEL, 3 * timeout_s)

    def __repr__(self) -> str:
        return f"PostgresStore({self._target.shown})"

    def _bare_link(self) -> Link:
        return Link(self._target, self._timeout_s)

    def _link(self) -> Link:
        link = self._bare_link()
        try:
            schema.ensure(link, self._migrations, self._target.shown, creates=self._creates)
            link.prepare(sql.ALL)
        except Refused as error:
            link.close()
            if error.sqlstate not in DIFFERENT:
                raise
            raise WrongSchema(
                f"expected the tables of sessions as farmsync makes them, found others: {error}; restore them from a "
                "backup, or name another database"
            ) from None
        except BaseException:
            link.close()
            raise
        return link

    def _ask(self, statement: Statement, *values: Value) -> _Answer:
        """Run a statement; once more on a new connection when the first one breaks."""
        if self._news.asleep:
            self._news.start()
        unsure = False
        for last in (False, True):
            link = self._pool.take()
            try:
                result = link.ask(statement, values)
            except Lost as error:
                self._pool.drop(link)
                unsure = True
                if last:
                    raise self._failed(error) from None
            except Late as error:
                self._pool.drop(link, away=str(error))
                raise self._failed(error) from None
            except Refused as error:
                self._refused(link, error, last=last)
            except BaseException:
                self._pool.drop(link)
                raise
            else:
                self._pool.give(link)
                return _Answer(result, unsure)
        raise AssertionError("the last try returns or raises")

    def _refused(self, link: Link, error: Refused, *, last: bool) -> None:
        """Nothing was done. Returns when it is to be tried again."""
        if error.sqlstate in FRESH:
            self._pool.drop(link)
        else:
            self._pool.give(link)
        if error.sqlstate == UNIQUE:
            raise SessionError("expected the new id of a session to be new, and it was used before") from None
        if last or error.sqlstate not in FRESH | AGAIN:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"expected {self._target.shown} to answer, and it failed: {error}")

    def prepare(self) -> None:
        """Create the tables, or bring them to the newest schema; each new connection sees to it too."""
        self._pool.give(self._pool.take())

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        """Insert a session of version 1."""
        mark = _new_mark()
        values = (digest, state, mark, life.idle_us, life.absolute_us, life.grain_us)
        answer = self._ask(sql.CREATE, *values)
        if not answer.result.rows:
            found = self._marked(digest) if answer.unsure else None
            if found is None or found.mark != mark:
                raise SessionError("expected the id of a new session to be new, and it was used before")
        return Written(1, life.idle_us, life.absolute_us)

    def read(self, digest: bytes) -> Row | None:
        """The session, or None."""
        found = self._marked(digest)
        return None if found is None else found.row

    def _marked(self, digest: bytes) -> _Marked | None:
        result = self._ask(sql.READ, digest).result
        return _Marked(_row(result), result.number(0, 4)) if result.rows else None

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        """Whether the session is still of this version, else the session, or None."""
        result = self._ask(sql.REVALIDATE, digest, version).result
        if not result.rows:
            return None
        if result.raw(0, 1) is None:
            return Same(result.number(0, 2), result.number(0, 3))
        return _row(result)

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        """Replace the state of a session that is still of this version."""
        mark = _new_mark()
        answer = self._ask(sql.WRITE, digest, version, state, mark, life.idle_us, life.grain_us)
        if answer.result.rows:
            return _written(answer.result)
        found = self._marked(digest)
        if found is None:
            return None
        if found.mark == mark:
            return Written(found.row.version, found.row.idle_left_us, found.row.absolute_left_us)
        if answer.unsure and found.row.version > version + 1:
            raise StoreUnavailable(
                f"expected {self._target.shown} to tell whether a write was done before its connection broke, and "
                "others have written since; read the session again"
            )
        return found.row

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        """Give a session that is still of this version a new digest and state."""
        values = (old, version, new, state, _new_mark(), life.idle_us, life.grain_us)
        answer = self._ask(sql.ROTATE, *values)
        if answer.result.rows:
            return _written(answer.result)
        if answer.unsure and (done := self.read(new)) is not None:  # nobody else knows the new id
            return Written(done.version, done.idle_left_us, done.absolute_left_us)
        return self.read(old)

    def delete(self, digest: bytes) -> bool:
        """End a session; True also when it is gone, and a first try whose answer was lost may have done it."""
        answer = self._ask(sql.DELETE, digest)
        return answer.unsure or bool(answer.result.rows and answer.result.number(0, 0))

    def sweep(self, limit: int) -> int | None:
        """Remove expired rows; None when another process does."""
        result = self._ask(sql.SWEEP, limit).result
        return result.number(0, 1) if result.number(0, 0) else None

    def find(self, prefix: bytes, limit: int) -> list[Listed]:
        """Live sessions by the beginning of their digest, the latest changed first."""
        result = self._ask(sql.FIND, prefix, beyond(prefix) or b"", limit).result
        return [
            Listed(result.blob(row, 0), *(result.number(row, column) for column in range(1, 7)))
            for row in range(result.rows)
        ]

    def stats(self) -> Stats:
        """Count."""
        result = self._ask(sql.STATS).result
        oldest = None if result.raw(0, 4) is None else result.number(0, 4)
        live, expired, total, largest = (result.number(0, column) for column in range(4))
        return Stats(live, expired, total, largest, oldest)

    def generation(self) -> int | None:
        """None: the database is elsewhere."""
        return None

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        """Be told of sessions that end anywhere, soon after."""
        self._news.listen(ended)

    def close(self) -> None:
        """Close all connections."""
        self._news.close()
        self._pool.close()


def _new_mark() -> int:
    return int.from_bytes(os.urandom(8), "big", signed=True)


def _row(result: Result) -> Row:
    return Row(result.number(0, 0), result.blob(0, 1), result.number(0, 2), result.number(0, 3))


def _written(result: Result) -> Written:
    return Written(result.number(0, 0), result.number(0, 1), result.number(0, 2))
