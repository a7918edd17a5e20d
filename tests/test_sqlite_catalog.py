from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from farmsyncd.core.cycle import Course, Step, cancellation, publication, roll_over
from farmsyncd.edges import sqlite_catalog, sqlite_schema
from farmsyncd.edges.catalog import Asked, FlipRecord, NodeRecord, PinRecord, VersionRecord
from farmsyncd.edges.sqlite_catalog import SqliteCatalog
from farmsyncd.errors import ConfigError, Unavailable

S = 1_000_000_000
V1, V2, V3 = "1" * 40, "2" * 40, "3" * 40
ASKED = Asked("publish", "tester", 5)
NODE = NodeRecord("web-1", "shop", "ready", 1, V1, None, None, 5, 7, "", None, 100)
FLIP = FlipRecord("shop", 1, "web-1", V1, 10 * S + 3, 2, "")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    catalog = SqliteCatalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


def kept(version: str, dataset: str = "shop") -> VersionRecord:
    return VersionRecord(dataset, version, int(version[0]), 3, 300)


def publish(catalog: SqliteCatalog, version: str, at_s: int, now_s: int = 0) -> Step:
    step = publication(catalog.course("shop") or Course("shop"), version, at_s * S, now_s * S, 2 * S)
    assert catalog.advance(step, ASKED, kept(version))
    return step


def activate(catalog: SqliteCatalog, at_s: int, *expected: str) -> Step:
    step = roll_over(catalog.course("shop") or Course("shop"), at_s * S)
    assert step is not None
    assert catalog.advance(step, Asked("publish", "web-1", at_s * S), None, expected)
    return step


def test_what_was_returned_from_is_there_after_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    catalog = SqliteCatalog(path)
    publish(catalog, V1, 10)
    activate(catalog, 10, "web-1", "web-2")
    step = publish(catalog, V2, 20, 11)
    catalog.note_nodes([NODE])
    catalog.note_flips([FLIP])
    catalog.pin(PinRecord("web-1", "shop", V1))
    catalog.close()
    catalog = SqliteCatalog(path)
    assert catalog.courses() == [step.after]
    assert catalog.course("other") is None
    assert catalog.nodes() == [NODE]
    assert catalog.flips("shop", 1) == [FLIP]
    assert catalog.expected("shop", 1) == ["web-1", "web-2"]
    assert catalog.pins() == [PinRecord("web-1", "shop", V1)]
    assert catalog.versions() == [kept(V1), kept(V2)]
    first = catalog.cycle("shop", 1)
    assert first is not None
    assert (first.outcome, first.rolled_over_at_ns, first.rolled_over_by) == ("active", 10 * S, "web-1")
    assert catalog.cycle("shop", 3) is None
    catalog.close()


def test_a_step_upon_a_course_that_has_moved_on_changes_nothing(catalog: SqliteCatalog) -> None:
    publish(catalog, V1, 10)
    stale = catalog.course("shop")
    assert stale is not None
    publish(catalog, V2, 20)
    now = catalog.course("shop"), catalog.history("shop", 9), catalog.versions()
    step = publication(stale, V3, 30 * S, 0, 2 * S)
    assert not catalog.advance(step, ASKED, kept(V3))
    assert not catalog.advance(publication(Course("shop"), V3, 30 * S, 0, 2 * S), ASKED, kept(V3))
    assert (catalog.course("shop"), catalog.history("shop", 9), catalog.versions()) == now


class OnAFullDisk(sqlite3.Connection):
    """A connection whose commits find no room while ``full`` is set."""

    full = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.full and sql == "COMMIT":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(sql, *parameters)


def test_a_full_disk_is_told_plainly_changes_nothing_and_is_forgotten_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    db = sqlite3.connect(path, isolation_level=None, factory=OnAFullDisk)
    catalog = SqliteCatalog(path, lambda _path: db)
    publish(catalog, V1, 10)
    before = catalog.courses(), catalog.history("shop", 9), catalog.versions()
    told = f"expected room for writing {path}, and the disk is full: free some space and try again"
    db.full = True
    with pytest.raises(Unavailable, match=re.escape(told)):
        publish(catalog, V2, 20)
    with pytest.raises(Unavailable, match=re.escape(told)):
        catalog.pin(PinRecord("web-1", "shop", V1))
    db.full = False
    assert (catalog.courses(), catalog.history("shop", 9), catalog.versions()) == before
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(Unavailable, match=re.escape(told)):
        catalog.note_nodes([attrs.evolve(NODE, name=f"web-{number}") for number in range(1000)])
    assert catalog.nodes() == []
    db.execute("PRAGMA max_page_count = 100000")
    publish(catalog, V2, 20)
    assert [one.version for one in catalog.versions()] == [V1, V2]
    catalog.close()


def test_the_history_tells_how_each_cycle_ended(catalog: SqliteCatalog) -> None:
    publish(catalog, V1, 10)
    publish(catalog, V2, 12)
    activate(catalog, 12)
    publish(catalog, V3, 30, 13)
    course = catalog.course("shop")
    assert course is not None
    assert catalog.advance(cancellation(course, 14 * S), ASKED)
    publish(catalog, V1, 40, 15)
    activate(catalog, 40)
    assert [(one.number, one.version, one.outcome) for one in catalog.history("shop", 9)] == [
        (4, V1, "active"), (3, V3, "cancelled"), (2, V2, "past"), (1, V1, "replaced"),
    ]  # fmt: skip
    assert [one.number for one in catalog.history("shop", 2)] == [4, 3]


def test_the_first_report_of_a_node_for_a_cycle_stands(catalog: SqliteCatalog) -> None:
    publish(catalog, V1, 10)
    catalog.note_flips([FLIP, FlipRecord("shop", 1, "web-1", V1, 1, 1, "again")])
    catalog.note_flips([FlipRecord("shop", 1, "web-1", V1, 2, 2, "again")])
    assert catalog.flips("shop", 1) == [FLIP]


def test_a_report_of_what_was_never_planned_is_not_kept_for_whatever_has_that_number_later(
    catalog: SqliteCatalog,
) -> None:
    publish(catalog, V1, 10)
    catalog.note_flips([FlipRecord("shop", 2, "web-1", V1, 1, 1, ""), FlipRecord("shop", 1, "web-1", V2, 1, 1, "")])
    publish(catalog, V2, 20)
    assert catalog.flips("shop", 1) == catalog.flips("shop", 2) == []
    catalog.note_flips([FLIP])
    assert catalog.flips("shop", 1) == [FLIP]


def test_pins_are_added_once_and_dropped_together(catalog: SqliteCatalog) -> None:
    for version in (V1, V2, V1):
        catalog.pin(PinRecord("web-1", "shop", version))
    catalog.pin(PinRecord("web-1", "docs", V1))
    assert len(catalog.pins()) == 3
    assert catalog.unpin("web-1", "shop") == 2
    assert catalog.unpin("web-1", "shop") == 0
    assert catalog.pins() == [PinRecord("web-1", "docs", V1)]


def test_nodes_are_replaced_and_forgotten(catalog: SqliteCatalog) -> None:
    catalog.note_nodes([NODE])
    later = NodeRecord("web-1", "shop", "late", 1, V1, None, None, None, None, "slow", "h:1", 200)
    catalog.note_nodes([later])
    assert catalog.nodes() == [later]
    catalog.forget_nodes([("web-1", "shop"), ("nobody", "shop")])
    assert catalog.nodes() == []


def test_a_version_that_is_active_or_pending_is_never_dropped(catalog: SqliteCatalog) -> None:
    publish(catalog, V1, 10)
    assert not catalog.drop_version("shop", V1)
    activate(catalog, 10)
    assert not catalog.drop_version("shop", V1)
    publish(catalog, V2, 20, 11)
    activate(catalog, 20)
    assert catalog.drop_version("shop", V1)
    assert not catalog.drop_version("shop", V1)
    assert catalog.versions() == [kept(V2)]


def test_pruning_forgets_the_oldest_cycles_but_never_those_of_the_course(catalog: SqliteCatalog) -> None:
    publish(catalog, V1, 10)
    activate(catalog, 10, "web-1")
    catalog.note_flips([FLIP])
    for at in range(20, 30):
        publish(catalog, V2, at, 11)
    catalog.prune("shop", 3)
    assert len(catalog.history("shop", 99)) == 11
    activate(catalog, 29)
    catalog.prune("shop", 3)
    catalog.prune("nothing", 3)
    assert [one.number for one in catalog.history("shop", 99)] == [11, 10, 9]
    assert catalog.flips("shop", 1) == []
    assert catalog.expected("shop", 1) == []


def test_a_catalog_of_a_newer_farmsync_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    SqliteCatalog(path).close()
    newer = len(sqlite_schema.MIGRATIONS) + 1
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {newer}")
    db.close()
    with pytest.raises(ConfigError, match=f"schema {newer}.*newer farmsync"):
        SqliteCatalog(path)


def test_a_file_that_is_no_catalog_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"these are somebody's notes, and no database at all\n" * 100)
    with pytest.raises(ConfigError, match=r"expected .* to be a farmsync catalog"):
        SqliteCatalog(path)


def test_an_older_catalog_is_brought_up_to_date_in_whole_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.sqlite"
    SqliteCatalog(path).close()
    more = (*sqlite_schema.MIGRATIONS, ("CREATE TABLE extra (a TEXT)", "THIS IS NO SQL"))
    monkeypatch.setattr(sqlite_catalog, "MIGRATIONS", more)
    with pytest.raises(ConfigError):
        SqliteCatalog(path)
    monkeypatch.setattr(sqlite_catalog, "MIGRATIONS", (*more[:-1], ("CREATE TABLE extra (a TEXT)",)))
    catalog = SqliteCatalog(path)
    assert catalog.courses() == []
    catalog.close()


class Crash(Exception):
    """The process dies here."""


class Mortal:
    """A connection that dies before statement number ``dies_at``, and leaves what a dead process leaves."""

    def __init__(self, path: Path, dies_at: int) -> None:
        self._db = sqlite_catalog.connect(path)
        self._left = dies_at
        self.statements = 0

    def _live(self) -> None:
        self.statements += 1
        self._left -= 1
        if self._left == 0:
            self._db.close()  # an open transaction is never committed
            self._left = -1
            raise Crash
        if self._left < 0:
            raise Crash

    @property
    def in_transaction(self) -> bool:
        return self._left > 0 and self._db.in_transaction

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._live()
        return self._db.execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._live()
        return self._db.executemany(*args)

    def close(self) -> None:
        self._db.close()


def whole_story(catalog: SqliteCatalog, done: list[str]) -> None:
    """A publication, its replacement, a roll-over and a cancellation; ``done`` hears of each that was returned from."""
    publish(catalog, V1, 10)
    done.append("published")
    publish(catalog, V2, 12)
    done.append("replaced")
    activate(catalog, 12, "web-1", "web-2")
    done.append("activated")
    publish(catalog, V3, 30, 13)
    done.append("published again")
    course = catalog.course("shop")
    assert course is not None
    assert catalog.advance(cancellation(course, 14 * S), ASKED)
    done.append("cancelled")


def check_consistency(catalog: SqliteCatalog, done: list[str]) -> None:
    course = catalog.course("shop")
    history = {one.number: one for one in catalog.history("shop", 99)}
    versions = {one.version for one in catalog.versions()}
    assert len(history) == (course.last_cycle if course else 0)
    for number, record in history.items():
        is_active = course is not None and course.active is not None and course.active.number == number
        is_pending = course is not None and course.pending is not None and course.pending.number == number
        assert (record.outcome == "active") is is_active
        assert (record.outcome == "pending") is is_pending
        assert record.version in versions
        assert catalog.expected("shop", number) == (["web-1", "web-2"] if record.rolled_over_at_ns else [])
    revision = course.revision if course else 0
    assert revision in {len(done), len(done) + 1}  # nothing that was answered is lost; one more may have been committed


def _dying(dies_at: int, made: list[Mortal]) -> Callable[[Path], sqlite3.Connection]:
    def connect(path: Path) -> sqlite3.Connection:
        made.append(Mortal(path, dies_at))
        return made[-1]  # type: ignore[return-value]

    return connect


def test_a_death_before_any_statement_loses_nothing_that_was_answered_and_leaves_no_half(tmp_path: Path) -> None:
    counted: list[Mortal] = []
    catalog = SqliteCatalog(tmp_path / "counted.sqlite", _dying(10**9, counted))
    whole_story(catalog, [])
    catalog.close()
    count = counted[0].statements
    assert count > 30
    for dies_at in range(1, count + 1):
        path = tmp_path / f"{dies_at}.sqlite"
        done: list[str] = []
        with pytest.raises((Crash, sqlite3.ProgrammingError)):
            whole_story(SqliteCatalog(path, _dying(dies_at, [])), done)
        catalog = SqliteCatalog(path)
        check_consistency(catalog, done)
        catalog.close()
