"""One connection to PostgreSQL, with a limit to how long any statement may take, whatever the server does.

It speaks through libpq's asynchronous functions, as psycopg exposes them: a statement that was prepared is one message
out and one in, and the wait between them ends when the time is over, also when the server has stopped without closing.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Sequence
from typing import Final

import attrs
import psycopg
from psycopg import pq

from farmsyncd.sessions.stores.postgres.target import Target
from farmsyncd.sessions.stores.postgres.trouble import GONE, Late, Lost, Refused

BYTEA: Final = 17
INT8: Final = 20
Value = bytes | int
_OF_SERVER: Final = 0.8  # the server gives up first, where it can: then it is known that nothing was done
_BINARY: Final = pq.Format.BINARY
_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_BAD: Final = pq.ConnStatus.BAD


@attrs.frozen
class Statement:
    """One that each connection prepares; ``types`` are its parameters' (BYTEA, INT8)."""

    name: bytes
    sql: bytes
    types: tuple[int, ...]
    formats: tuple[int, ...] = attrs.field(init=False)

    @formats.default
    def _formats(self) -> tuple[int, ...]:
        return tuple(int(kind == BYTEA) for kind in self.types)


class Result:
    """What came back: rows of columns in binary."""

    def __init__(self, result: pq.abc.PGresult) -> None:
        self.rows = result.ntuples
        self._value = result.get_value

    def raw(self, row: int, column: int) -> bytes | None:
        """A column as it is."""
        return self._value(row, column)

    def blob(self, row: int, column: int) -> bytes:
        """A column that is bytea and not null."""
        raw = self._value(row, column)
        assert raw is not None
        return bytes(raw)

    def number(self, row: int, column: int) -> int:
        """A column that is an integer or a boolean and not null."""
        raw = self._value(row, column)
        assert raw is not None
        return int.from_bytes(raw, "big", signed=True)


class Link:
    """A connection; for one thread at a time. After Lost or Late it can only be closed."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        """Connect; raises Lost when that fails. What the server's administrator chose for safety is kept or raised."""
        self._timeout_s = timeout_s
        self._limit = f"SET statement_timeout = {math.ceil(timeout_s * _OF_SERVER * 1000)}"
        try:
            self._connection = psycopg.Connection.connect(target.conninfo, autocommit=True)
        except psycopg.Error as error:
            raise Lost(" ".join(str(error).split())) from error
        self._pg = self._connection.pgconn
        self._reading = select.poll()
        self._reading.register(self._pg.socket, select.POLLIN)
        self._both = select.poll()
        self._both.register(self._pg.socket, select.POLLIN | select.POLLOUT)
        try:
            self.run(
                f"{self._limit}; SET default_transaction_isolation = 'read committed'; "
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        except BaseException:
            self.close()
            raise

    def limit(self) -> None:
        """Have the server end what takes too long, a little before we do."""
        self.run(self._limit)

    def prepare(self, statements: Sequence[Statement]) -> None:
        """Prepare statements, all in one round trip; raises Refused when one does not fit the tables."""
        self._pg.enter_pipeline_mode()
        for statement in statements:
            self._pg.send_prepare(statement.name, statement.sql, statement.types)
        self._pg.pipeline_sync()
        ends = time.monotonic() + self._timeout_s
        results: list[pq.abc.PGresult] = []
        while not results or results[-1].status != pq.ExecStatus.PIPELINE_SYNC:
            results += self._receive(ends)
        self._pg.exit_pipeline_mode()
        _check(results)

    def ask(self, statement: Statement, values: Sequence[Value]) -> Result:
        """Run a prepared statement: one round trip, one transaction."""
        sent = [value if isinstance(value, bytes) else b"%d" % value for value in values]
        try:
            self._pg.send_query_prepared(statement.name, sent, statement.formats, _BINARY)
        except psycopg.Error as error:
            raise Lost(str(error).strip()) from error
        return Result(self._only(self._receive(time.monotonic() + self._timeout_s)))

    def run(self, sql: str, timeout_s: float | None = None) -> list[tuple[str | None, ...]]:
        """Run statements without parameters; the last one's rows, as text."""
        ends = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        try:
            self._pg.send_query(sql.encode())
        except psycopg.Error as error:
            raise Lost(str(error).strip()) from error
        results = self._receive(ends)
        _check(results)
        result = self._only(results[-1:])
        texts = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
        return [tuple(None if one is None else one.decode() for one in row) for row in texts]

    def _only(self, results: list[pq.abc.PGresult]) -> pq.abc.PGresult:
        _check(results)
        if len(results) != 1:
            raise Lost(self._pg.get_error_message().strip() or "the server closed the connection")
        return results[0]

    def _receive(self, ends: float) -> list[pq.abc.PGresult]:
        """All results up to the next pause in them; raises Lost, and Late when the time is over."""
        pg = self._pg
        results = []
        try:
            while pg.flush():
                self._wait(self._both, ends)
                pg.consume_input()
            while True:
                while pg.is_busy():
                    self._wait(self._reading, ends)
                    pg.consume_input()
                if (result := pg.get_result()) is None:
                    break
                results.append(result)
        except psycopg.Error as error:
            raise Lost(" ".join(str(error).split())) from error
        if pg.status == _BAD:
            raise Lost(_text(results) or " ".join(pg.get_error_message().split()))
        return results

    def _wait(self, poller: select.poll, ends: float) -> None:
        left_s = ends - time.monotonic()
        if left_s <= 0 or not poller.poll(math.ceil(left_s * 1000)):
            raise Late(f"no answer within {self._timeout_s:g} s")

    def quiet(self) -> bool:
        """Whether the connection, which nobody uses, seems good: the server has said nothing, not even goodbye."""
        if self._pg.status == _BAD:
            return False
        if not self._reading.poll(0):
            return True
        try:
            self._pg.consume_input()  # perhaps a notice
        except psycopg.Error:
            return False
        return self._pg.status != _BAD and not self._reading.poll(0)

    def notifications(self) -> list[str]:
        """What was notified and has arrived; raises Lost."""
        try:
            self._pg.consume_input()
            found = []
            while (one := self._pg.notifies()) is not None:
                found.append(one.extra.decode())
        except psycopg.Error as error:
            raise Lost(str(error).strip()) from error
        return found

    def fileno(self) -> int:
        """The socket."""
        return self._pg.socket

    def close(self) -> None:
        """Close it; never waits."""
        self._connection.close()

    def disown(self) -> None:
        """In a forked process: close our end of what our parent goes on using, and say nothing to the server."""
        os.close(self._pg.socket)


def _check(results: list[pq.abc.PGresult]) -> None:
    for result in results:
        if result.status == _FAILED:
            sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            if not sqlstate or sqlstate in GONE:
                raise Lost(_text([result]))
            raise Refused(sqlstate, _text([result]))


def _text(results: list[pq.abc.PGresult]) -> str:
    """The server's message, without details, which may quote rows."""
    for result in results:
        if result.status == _FAILED:
            message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
            return " ".join(message.decode("utf-8", "replace").split())
    return ""
