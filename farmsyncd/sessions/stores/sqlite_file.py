"""Connections to one SQLite file: opened late, never shared over a fork, and never to a file that is no longer there.

SQLite goes on with a file that was deleted or replaced, as if its writes meant something. So each use looks first
whether the path still leads to the file that is open, and each write looks again after its commit.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.forks import tell_of_forks
from farmsyncd.sessions.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS

Connect = Callable[[Path, float], sqlite3.Connection]
Migrations = Sequence[Sequence[str]]

_log = logging.getLogger("farmsync.sessions")
_FORK_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.004
_LOOK_EACH_S: Final = 0.1
_GLANCE_S: Final = 0.1  # event loops ask for the data version: a read of another thread must not hold them up
_VERSIONS: Final = 1 << 40  # more commits than one connection will ever see
_UNUSABLE: Final = {
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_PERM
}  # fmt: skip


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection that begins no transaction by itself, for one thread at a time."""
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


class SqliteFile:
    """One way into the file: a connection that is opened when it is first needed, for one thread at a time.

    The file is created by the first use alone, and not even then with ``creates`` False; when it is gone later, that is
    an error, not a new beginning. ``opened`` counts how often it was opened.
    """

    def __init__(
        self,
        path: Path,
        timeout_s: float,
        connect: Connect = connect,
        migrations: Migrations = MIGRATIONS,
        *,
        creates: bool = True,
        writes: bool = True,
    ) -> None:
        self.opened = 0
        self._path = path
        self._timeout_s = timeout_s
        self._connect = connect
        self._migrations = migrations
        self._creates = creates
        self._writes = writes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._look_s = 0.0
        self._unknown = itertools.count(-1, -1)
        self._held_for_fork = False
        self._abandoned: list[sqlite3.Connection | None] = []
        tell_of_forks(self)

    @contextlib.contextmanager
    def use(self, patience_s: float | None = None) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone; what SQLite raises inside becomes StoreUnavailable."""
        patience_s = self._timeout_s if patience_s is None else patience_s
        if not self._lock.acquire(timeout=patience_s):
            raise StoreUnavailable(f"expected {self._path} to be free within {patience_s:g} s, and others write to it")
        try:
            yield self._ready()
        except sqlite3.Error as error:
            self._drop()
            raise StoreUnavailable(
                f"expected the sessions' file {self._path} to work, and it fails: {error}"
            ) from error
        finally:
            self._lock.release()

    def data_version(self) -> int:
        """A number that changes whenever another connection commits, and when the file is opened anew.

        Event loops ask for it with each request, so it opens nothing, and whether the file is still the one of the path
        is looked at ten times a second. Where it cannot be told (no file is open, trouble, a connection that is in use
        for longer than a moment), it is a number that never was: whoever asks then reads the row, which opens the file.
        (None would not do: copies are then trusted for a while.)
        """
        if not self._lock.acquire(timeout=_GLANCE_S):
            return next(self._unknown)
        try:
            if self._connection is None:
                return next(self._unknown)
            now_s = time.monotonic()
            if now_s >= self._look_s:
                if self._moved():
                    return next(self._unknown)
                self._look_s = now_s + _LOOK_EACH_S
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            self._drop()
            return next(self._unknown)
        finally:
            self._lock.release()
        return self.opened * _VERSIONS + found

    @contextlib.contextmanager
    def transaction(self, patience_s: float | None = None) -> Iterator[sqlite3.Connection]:
        """The connection in a transaction that may write; when the block ends, it is durable in the file of the path.

        Raises StoreUnavailable when another process keeps writing for longer than ``patience_s``.
        """
        ends = time.monotonic() + (self._timeout_s if patience_s is None else patience_s)
        with self.use(patience_s) as connection:
            self._begin(connection, ends)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if self._moved():
                raise StoreUnavailable(f"expected {self._path} to stay where it is, and it was moved or deleted")

    def _begin(self, connection: sqlite3.Connection, ends: float) -> None:
        """Begin, however many others write: SQLite's own waiting sleeps so long that some never get their turn."""
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if not _busy(error):
                    raise
            else:
                return
            if time.monotonic() > ends:
                raise StoreUnavailable(
                    f"expected to write to {self._path} within {self._timeout_s:g} s, and others write to it; "
                    "nothing was stored"
                )
            _pause()

    def close(self) -> None:
        """Close the connection; a later use opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _ready(self) -> sqlite3.Connection:
        if self._connection is not None:
            if not self._moved():
                return self._connection
            _log.warning("the sessions' file %s was replaced or deleted: opening it anew", self._path)
            self._drop()
        return self._open()

    def _moved(self) -> bool:
        return self._found() != self._identity

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - Path.stat takes as long again, and this is done at each use
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        if self.opened and self._found() is None:
            raise StoreUnavailable(
                f"expected the sessions' file {self._path}, and it is gone; put it back, or restart to begin anew"
            )
        if not self.opened:
            self._begin_file()
        ends = time.monotonic() + self._timeout_s
        while True:
            try:
                self._connection = self._prepared()
            except sqlite3.Error as error:
                if not self.opened and _code(error) in _UNUSABLE:
                    raise ConfigError(
                        f"expected {self._path} to be a file for sessions, and it cannot be used: {error}; "
                        "see to its folder and its permissions, or move it away to begin anew"
                    ) from error
                if not _busy(error) or time.monotonic() > ends:
                    raise
            else:
                self.opened += 1
                return self._connection
            _pause()  # some steps of the first start are refused at once while another process does them

    def _prepared(self) -> sqlite3.Connection:
        self._identity = self._found()
        connection = self._connect(self._path, self._timeout_s)
        try:
            prepare(connection, self._path, self._migrations, creates=self._creates)
            if self._writes:  # a file that is read only is found now, not at the first write
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
                connection.execute("ROLLBACK")
            if self._moved():
                raise StoreUnavailable(f"expected {self._path} to stay where it is, and it was moved or deleted")
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_file(self) -> None:
        """Make the file before SQLite does, readable by its owner alone; unless it must be there already.

        It must not be opened for that: whoever closes a file takes away all locks that their process has on it, those
        of SQLite's connections too. The next process to leave would then take the write-ahead log with it.
        """
        if not self._creates:
            if self._found() is None:
                raise StoreUnavailable(
                    f"expected a file with sessions at {self._path}, and there is none; name another, or start "
                    "what keeps sessions there"
                )
            return
        with contextlib.suppress(OSError):  # it is there, or SQLite will say what is wrong
            os.mknod(self._path, stat.S_IFREG | 0o600)

    def before_fork(self) -> None:
        """Close, and let nobody open until the fork is done: a child must not inherit SQLite's idea of its locks."""
        self._held_for_fork = self._lock.acquire(timeout=_FORK_PATIENCE_S)
        if self._held_for_fork:
            self._drop()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on, with a connection of our own; also when who forked was not Python, and told nobody before."""
        if self._held_for_fork or self._lock.acquire(blocking=False):
            self._drop()
        else:
            self._abandoned.append(self._connection)  # its user is a thread that is not here
            self._connection = None
        self._held_for_fork = False
        self._lock = threading.Lock()


def prepare(connection: sqlite3.Connection, path: Path, migrations: Migrations, *, creates: bool = True) -> None:
    """Set up a connection; bring the file to the newest schema.

    Raises WrongSchema for a file of another program or of a newer farmsync; with ``creates`` False, StoreUnavailable
    for an empty one.
    """
    connection.execute("BEGIN")  # what is looked at belongs together, also while another process migrates
    if not _check(connection, path, migrations) and not creates:
        raise StoreUnavailable(f"expected farmsync's sessions in {path}, and it is empty; name another file")
    connection.execute("COMMIT")
    if (mode := connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
        raise ConfigError(f"expected {path} to be on a file system with a write-ahead log, found mode {mode!r}")
    connection.execute("PRAGMA synchronous = FULL")
    while _number(connection, "user_version") < len(migrations):
        _migrate_once(connection, path, migrations)


def _check(connection: sqlite3.Connection, path: Path, migrations: Migrations) -> int:
    """The schema that was found; 0 for an empty file."""
    application, found = _number(connection, "application_id"), _number(connection, "user_version")
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and application == 0 and found == 0):
        raise WrongSchema(
            f"expected {path} to hold farmsync's sessions, found another program's database; name another"
        )
    if found > len(migrations):
        raise WrongSchema(
            f"expected {path} to hold sessions of schema {len(migrations)} or older, found schema {found}; "
            "run the newer farmsync that wrote it"
        )
    return found


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for what the Python module raises itself."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code if code < 0 else code & 0xFF


def _busy(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _pause() -> None:
    time.sleep(random.uniform(_RETRY_S / 4, _RETRY_S))  # noqa: S311 - whose turn is next is no secret


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _migrate_once(connection: sqlite3.Connection, path: Path, migrations: Migrations) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _check(connection, path, migrations)  # another process may have been quicker
        if done < len(migrations):
            for statement in migrations[done]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {done + 1}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
