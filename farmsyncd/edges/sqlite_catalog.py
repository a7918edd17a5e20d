"""The catalog in one SQLite file: write-ahead log, and every commit synced to the disk before it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from farmsyncd.core.cycle import Course, Cycle, Step
from farmsyncd.edges.catalog import Asked, CycleRecord, FlipRecord, NodeRecord, PinRecord, VersionRecord
from farmsyncd.edges.sqlite_schema import APPLICATION_ID, MIGRATIONS
from farmsyncd.errors import ConfigError, Unavailable

Connect = Callable[[Path], sqlite3.Connection]

_COURSE = """
    SELECT d.name, d.revision, d.last_cycle,
           a.number, a.version, a.activates_at_ns, a.freezes_at_ns,
           p.number, p.version, p.activates_at_ns, p.freezes_at_ns
    FROM datasets d
    LEFT JOIN cycles a ON a.dataset = d.name AND a.number = d.active_cycle
    LEFT JOIN cycles p ON p.dataset = d.name AND p.number = d.pending_cycle
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection that begins no transaction by itself, usable by whichever one thread the catalog lives in."""
    return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)


class SqliteCatalog:
    """A :class:`farmsyncd.edges.catalog.Catalog`.

    Raises ConfigError for a file that is no catalog, and for one that a newer farmsync has written; what writes
    raises Unavailable, and has changed nothing, when the disk is full.
    """

    def __init__(self, path: Path, connect: Connect = connect) -> None:
        self._path = path
        self._db = connect(path)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError(
                f"expected {path} to be a farmsync catalog, and it cannot be used: {error}; restore it from a copy, "
                "or move it away to begin anew"
            ) from error
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA busy_timeout = 30000")
        if self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        self._db.execute("PRAGMA synchronous = FULL")
        found = self._number("PRAGMA user_version")
        if found > len(MIGRATIONS):
            raise ConfigError(
                f"{self._path} is a catalog of schema {found}, and this farmsync knows schemas up to "
                f"{len(MIGRATIONS)}; run the newer farmsync that wrote it"
            )
        while self._number("PRAGMA user_version") < len(MIGRATIONS):
            self._migrate_once()

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(pragma).fetchone()[0])

    def _migrate_once(self) -> None:
        with self._transaction():
            done = self._number("PRAGMA user_version")
            if done >= len(MIGRATIONS):
                return  # another process was quicker
            for statement in MIGRATIONS[done]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {done + 1}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a disk that is full may have ended it
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise Unavailable(
                f"expected room for writing {self._path}, and the disk is full: free some space and try again"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Courses and cycles

    def courses(self) -> list[Course]:
        """All datasets' courses, by name."""
        return [_course(row) for row in self._db.execute(f"{_COURSE} ORDER BY d.name")]

    def course(self, dataset: str) -> Course | None:
        """The course of one dataset, or None."""
        row = self._db.execute(f"{_COURSE} WHERE d.name = ?", (dataset,)).fetchone()
        return None if row is None else _course(row)

    def advance(
        self, step: Step, asked: Asked, version: VersionRecord | None = None, expected: Iterable[str] = ()
    ) -> bool:
        """Carry out ``step`` if its course has not moved on; whether it was carried out."""
        before, after = step.before, step.after
        with self._transaction():
            if before.revision == 0:
                self._db.execute("INSERT OR IGNORE INTO datasets VALUES (?, 0, 0, NULL, NULL)", (before.dataset,))
            swapped = self._db.execute(
                """UPDATE datasets SET revision = ?, last_cycle = ?, active_cycle = ?, pending_cycle = ?
                   WHERE name = ? AND revision = ? AND pending_cycle IS ? AND active_cycle IS ?""",
                (
                    *(after.revision, after.last_cycle, _number_of(after.active), _number_of(after.pending)),
                    *(before.dataset, before.revision, _number_of(before.pending), _number_of(before.active)),
                ),
            )
            if swapped.rowcount != 1:
                return False
            self._record(step, asked, expected)
            if version is not None:
                self._db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?)", attrs.astuple(version))
        return True

    def _record(self, step: Step, asked: Asked, expected: Iterable[str]) -> None:
        dataset = step.before.dataset
        if step.dropped is not None:
            outcome = "cancelled" if step.scheduled is None else "replaced"
            self._end(dataset, step.dropped, outcome)
        if step.scheduled is not None:
            cycle = step.scheduled
            record = CycleRecord(
                *(dataset, cycle.number, cycle.version, cycle.activates_at_ns, cycle.freezes_at_ns),
                *("pending", asked.origin, asked.by, asked.at_ns),
            )
            self._db.execute("INSERT INTO cycles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", attrs.astuple(record))
        if step.activated is not None:
            if step.before.active is not None:
                self._end(dataset, step.before.active, "past")
            self._db.execute(
                """UPDATE cycles SET outcome = 'active', rolled_over_at_ns = ?, rolled_over_by = ?
                   WHERE dataset = ? AND number = ?""",
                (asked.at_ns, asked.by, dataset, step.activated.number),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO expected VALUES (?, ?, ?)",
                [(dataset, step.activated.number, node) for node in expected],
            )

    def _end(self, dataset: str, cycle: Cycle, outcome: str) -> None:
        self._db.execute(
            "UPDATE cycles SET outcome = ? WHERE dataset = ? AND number = ?", (outcome, dataset, cycle.number)
        )

    def history(self, dataset: str, limit: int) -> list[CycleRecord]:
        """The cycles of a dataset, newest first."""
        rows = self._db.execute("SELECT * FROM cycles WHERE dataset = ? ORDER BY number DESC LIMIT ?", (dataset, limit))
        return [CycleRecord(*row) for row in rows]

    def cycle(self, dataset: str, number: int) -> CycleRecord | None:
        """One cycle, or None."""
        found = self._db.execute("SELECT * FROM cycles WHERE dataset = ? AND number = ?", (dataset, number))
        row = found.fetchone()
        return None if row is None else CycleRecord(*row)

    def prune(self, dataset: str, keep: int) -> None:
        """Forget all but the newest ``keep`` cycles of a dataset, with their reports; never one of its course."""
        oldest = self._db.execute(
            """SELECT min(d.last_cycle - ? + 1, coalesce(d.active_cycle, 1 << 62), coalesce(d.pending_cycle, 1 << 62))
               FROM datasets d WHERE d.name = ?""",
            (keep, dataset),
        ).fetchone()
        if oldest is None or oldest[0] <= 1:
            return
        with self._transaction():
            for statement in (
                "DELETE FROM cycles WHERE dataset = ? AND number < ?",
                "DELETE FROM flips WHERE dataset = ? AND cycle < ?",
                "DELETE FROM expected WHERE dataset = ? AND cycle < ?",
            ):
                self._db.execute(statement, (dataset, oldest[0]))

    # Versions

    def versions(self) -> list[VersionRecord]:
        """All versions that are kept, the oldest first."""
        rows = self._db.execute("SELECT * FROM versions ORDER BY published_at_ns, dataset, version")
        return [VersionRecord(*row) for row in rows]

    def drop_version(self, dataset: str, version: str) -> bool:
        """Forget that a version is kept, unless it is active or pending; whether it was forgotten."""
        statement = """DELETE FROM versions WHERE dataset = ? AND version = ? AND NOT EXISTS (
            SELECT 1 FROM datasets d
            JOIN cycles c ON c.dataset = d.name AND c.number IN (d.active_cycle, d.pending_cycle)
            WHERE d.name = versions.dataset AND c.version = versions.version)"""
        return self._write(statement, [(dataset, version)]) > 0

    # Nodes, flips and pins

    def nodes(self) -> list[NodeRecord]:
        """All nodes that are known, by name and dataset."""
        return [NodeRecord(*row) for row in self._db.execute("SELECT * FROM nodes ORDER BY name, dataset")]

    def note_nodes(self, records: Iterable[NodeRecord]) -> None:
        """Replace what is known of these nodes and datasets."""
        self._write(
            "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [attrs.astuple(one) for one in records],
        )

    def forget_nodes(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget how these nodes, each (name, dataset), stood."""
        self._write("DELETE FROM nodes WHERE name = ? AND dataset = ?", list(keys))

    def note_flips(self, records: Iterable[FlipRecord]) -> None:
        """Add reports of flips to a version in a cycle that there is; the first of a node for a cycle stands."""
        statement = """INSERT OR IGNORE INTO flips SELECT new.* FROM
            (SELECT ? AS dataset, ? AS cycle, ? AS node, ? AS version, ?, ?, ?) new
            JOIN cycles c ON c.dataset = new.dataset AND c.number = new.cycle AND c.version = new.version"""
        self._write(statement, [attrs.astuple(one) for one in records])

    def flips(self, dataset: str, cycle: int) -> list[FlipRecord]:
        """The reports of one cycle, by time."""
        rows = self._db.execute(
            "SELECT * FROM flips WHERE dataset = ? AND cycle = ? ORDER BY activated_at_ns, node", (dataset, cycle)
        )
        return [FlipRecord(*row) for row in rows]

    def expected(self, dataset: str, cycle: int) -> list[str]:
        """The nodes that were known when the cycle was activated, by name."""
        rows = self._db.execute(
            "SELECT node FROM expected WHERE dataset = ? AND cycle = ? ORDER BY node", (dataset, cycle)
        )
        return [row[0] for row in rows]

    def pins(self) -> list[PinRecord]:
        """All pins."""
        return [PinRecord(*row) for row in self._db.execute("SELECT * FROM pins ORDER BY node, dataset, version")]

    def pin(self, pin: PinRecord) -> None:
        """Add a pin; one that is there already is left."""
        self._write("INSERT OR IGNORE INTO pins VALUES (?, ?, ?)", [attrs.astuple(pin)])

    def unpin(self, node: str, dataset: str) -> int:
        """Drop all pins of a node in a dataset; the number of them."""
        return self._write("DELETE FROM pins WHERE node = ? AND dataset = ?", [(node, dataset)])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        if not rows:
            return 0
        with self._transaction():
            return self._db.executemany(statement, rows).rowcount


def _number_of(cycle: Cycle | None) -> int | None:
    return None if cycle is None else cycle.number


def _course(row: tuple[Any, ...]) -> Course:
    name, revision, last_cycle, *cycles = row
    return Course(name, revision, last_cycle, _cycle(cycles[:4]), _cycle(cycles[4:]))


def _cycle(columns: Sequence[Any]) -> Cycle | None:
    return None if columns[0] is None else Cycle(*columns)
