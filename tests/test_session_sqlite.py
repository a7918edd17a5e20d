"""What is particular to sessions in SQLite: whose file it is, whether it is still there, full disks, forks."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Written
from farmsyncd.sessions.stores.sqlite import SqliteStore
from farmsyncd.sessions.stores.sqlite_file import SqliteFile, connect
from farmsyncd.sessions.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS
from tests.daemons import TREE, environment
from tests.eventually import LIMIT, eventually
from tests.small_disk import SmallDisk

LIFE = Lifetime(3_600_000_000, 36_000_000_000)
PATIENT_S = 20.0
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., SqliteStore]]:
    made = []

    def one(timeout_s: float = PATIENT_S, **more: object) -> SqliteStore:
        made.append(SqliteStore(path, timeout_s, **more))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., SqliteStore]) -> SqliteStore:
    one = make()
    one.prepare()
    one.create(A, b"one", LIFE)
    return one


def state(store: SqliteStore, digest: bytes = A) -> bytes | None:
    found = store.read(digest)
    return None if found is None else found.state


# The file


def test_the_file_is_its_owners_alone_and_every_commit_is_synced(store: SqliteStore, path: Path) -> None:
    for one in (path, path.with_name("sessions.db-wal")):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    with store._writing.use() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_relative_path_means_the_directory_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(Path("here.db"), PATIENT_S)
    monkeypatch.chdir("/")
    store.prepare()
    store.close()
    assert (tmp_path / "here.db").exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "missing" / "s.db", PATIENT_S)
    for call in (store.prepare, lambda: store.read(A)):
        with pytest.raises(ConfigError, match=r"missing/s\.db to be a file for sessions.*unable to open"):
            call()


def test_what_is_no_database_is_left_alone(path: Path, make: Callable[..., SqliteStore]) -> None:
    path.write_text("my thesis\n" * 1000)
    with pytest.raises(ConfigError, match="not a database"):
        make().prepare()
    assert path.read_text() == "my thesis\n" * 1000


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE sessions (id)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"],
)
def test_another_programs_database_is_left_alone(path: Path, make: Callable[..., SqliteStore], statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(WrongSchema, match="another program's database"):
        make().prepare()
    assert path.read_bytes() == before


def test_a_file_of_a_newer_farmsync_is_left_alone(
    path: Path, store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(WrongSchema, match="run the newer farmsync that wrote it"):
        make().prepare()


def test_an_older_schema_becomes_todays_and_keeps_its_sessions(
    path: Path, store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    later = [*MIGRATIONS, ["ALTER TABLE sessions ADD COLUMN colour TEXT", "CREATE TABLE more (x)"]]
    with ThreadPoolExecutor(4) as pool:
        newer = [make(migrations=later) for _ in range(4)]
        list(pool.map(lambda one: one.prepare(), newer))
    assert state(newer[0]) == b"one"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT colour FROM sessions").fetchall() == [(None,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)  # who has it open already goes on


def test_a_migration_that_fails_leaves_everything_as_it_was(
    path: Path, store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    with pytest.raises(StoreUnavailable, match="no such table"):
        make(migrations=[*MIGRATIONS, ["CREATE TABLE more (x)", "INSERT INTO missing VALUES (1)"]]).prepare()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'more'").fetchone() == (0,)
    connection.close()
    assert state(store) == b"one"


def read_only(path: Path, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{path}?mode=ro", uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )


def test_a_file_that_may_only_be_read_is_refused_at_the_start(
    store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    with pytest.raises(ConfigError, match="readonly"):
        make(connect=read_only).prepare()


def test_a_file_that_may_only_be_read_by_now_is_still_read(
    store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    store._writing.close()
    store._writing._connect = read_only
    with pytest.raises(StoreUnavailable, match="readonly"):
        store.write(A, 1, b"two", LIFE)
    assert state(store) == b"one"


# A file that goes away


def test_a_file_that_was_deleted_is_an_error_and_never_written_to(path: Path, store: SqliteStore) -> None:
    away = path.with_name("away.db")
    path.rename(away)
    for call in (
        lambda: store.write(A, 1, b"two", LIFE),
        lambda: store.create(B, b"new", LIFE),
        lambda: store.read(A),
        lambda: store.sweep(1),
    ):
        with pytest.raises(StoreUnavailable, match="it is gone; put it back, or restart"):
            call()
    assert store.generation() != store.generation(), "no copy is of now"
    assert not path.exists()
    away.rename(path)
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)
    assert state(store) == b"two"


def test_a_restart_begins_anew_where_the_file_was_deleted(
    path: Path, store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    for one in path.parent.glob("sessions.db*"):
        one.unlink()
    with pytest.raises(StoreUnavailable):
        store.read(A)
    restarted = make()
    restarted.prepare()
    restarted.create(B, b"new", LIFE)
    assert (state(store, A), state(store, B)) == (None, b"new")  # and who had the old one finds the new one


def test_a_backup_that_takes_the_files_place_is_opened(path: Path, store: SqliteStore) -> None:
    backup = path.with_name("backup.db")
    copy = sqlite3.connect(backup)
    with store._reading.use() as connection:
        connection.backup(copy)
    copy.close()
    store.write(A, 1, b"later", LIFE)
    before = store.generation()
    assert before is not None
    for one in path.parent.glob("sessions.db*"):
        one.unlink()  # the log too: SQLite would add it to whatever file it finds
    backup.rename(path)
    assert eventually(lambda: store.generation() != before)
    assert state(store) == b"one"
    assert store.generation() == store.generation() != before
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)


def test_a_file_that_goes_in_the_middle_of_a_write_is_not_said_to_be_written(path: Path) -> None:
    file = SqliteFile(path, PATIENT_S)

    def write() -> None:
        with file.transaction() as connection:
            connection.execute("CREATE TABLE more (x)")
            path.unlink()

    with pytest.raises(StoreUnavailable, match="moved or deleted"):
        write()
    file.close()


def test_a_store_that_creates_nothing_refuses_what_is_not_there(path: Path, store: SqliteStore) -> None:
    missing, empty = path.with_name("missing.db"), path.with_name("empty.db")
    empty.touch()
    before = sorted(one.name for one in path.parent.iterdir())
    for where, says in ((missing, "there is none"), (missing / "s.db", "there is none"), (empty, "it is empty")):
        looking = SqliteStore(where, PATIENT_S, creates=False)
        for call in (looking.prepare, lambda: looking.read(A), looking.stats):  # noqa: B023 - called at once
            with pytest.raises(StoreUnavailable, match=says):
                call()
        looking.close()
    assert sorted(one.name for one in path.parent.iterdir()) == before
    assert empty.stat().st_size == 0
    looking = SqliteStore(path, PATIENT_S, creates=False)
    looking.prepare()
    assert state(looking) == b"one"
    looking.close()


# Others who write


def test_another_writer_delays_writes_for_a_while_and_reads_not_at_all(
    path: Path, store: SqliteStore, make: Callable[..., SqliteStore]
) -> None:
    hasty = make(0.2)
    hasty.prepare()
    hasty.create(B, b"short", Lifetime(1, 1))
    other = connect(path, PATIENT_S)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="others write to it; nothing was stored"):
        hasty.write(A, 1, b"two", LIFE)
    assert state(hasty) == b"one"
    assert hasty.sweep(10) is None
    other.execute("ROLLBACK")
    other.close()
    assert eventually(lambda: hasty.sweep(10)) == 1
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)


def test_a_thread_that_writes_holds_up_no_reader(store: SqliteStore) -> None:
    with ThreadPoolExecutor(1) as pool, store._writing.transaction():
        assert pool.submit(store.read, A).result() is not None
        waiting = pool.submit(store.write, A, 1, b"two", LIFE)
        assert not waiting.done()
        assert state(store) == b"one"
    assert isinstance(waiting.result(), Written)


def test_the_generation_changes_with_commits_alone(store: SqliteStore, make: Callable[..., SqliteStore]) -> None:
    other = make()
    before = store.generation()
    assert before is not None
    store.read(A)
    assert isinstance(other.revalidate(A, 1), Same)
    assert isinstance(other.write(A, 7, b"late", LIFE), Row)
    assert store.generation() == before
    other.write(A, 1, b"two", LIFE)
    assert store.generation() != before
    before = store.generation()
    store.write(A, 2, b"three", LIFE)
    assert store.generation() != before


def test_the_generation_is_told_without_waiting_for_a_read_that_takes_long(make: Callable[..., SqliteStore]) -> None:
    store = make(LIMIT)
    store.prepare()
    with ThreadPoolExecutor(1) as threads, store._reading.use():
        told = [threads.submit(store.generation).result(LIMIT / 2) for _ in range(2)]
    assert len({*told, store.generation()}) == 3, "no copy is trusted meanwhile"
    assert store.generation() == store.generation()


def test_asking_for_the_generation_opens_no_file(path: Path, store: SqliteStore) -> None:
    def opens(path: Path, timeout_s: float) -> sqlite3.Connection:
        opened.append(path)
        return connect(path, timeout_s)

    opened: list[Path] = []
    store._reading._connect = opens
    store._reading.close()
    told = [store.generation() for _ in range(3)]
    assert len({*told}) == 3, "no copy is trusted meanwhile"
    assert opened == []
    assert state(store) == b"one"
    assert opened == [path], "reading opens it"
    assert store.generation() == store.generation()
    assert store.generation() not in told


def test_asking_for_the_generation_opens_no_file_that_takes_the_place(path: Path, store: SqliteStore) -> None:
    opened, before = store._reading.opened, store.generation()
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").replace(path)
    assert eventually(lambda: store.generation() != before)
    assert store.generation() != store.generation()
    assert store._reading.opened == opened


def test_the_generation_never_comes_again_after_the_connection_was_lost(store: SqliteStore) -> None:
    seen = {store.generation()}
    for _ in range(3):
        store._reading.close()
        assert state(store) == b"one"
        assert store.generation() not in seen
        seen.add(store.generation())


# A full disk


_FILLING = """
import resource, signal, sys
from pathlib import Path
from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Written
from farmsyncd.sessions.stores.sqlite import SqliteStore

life = Lifetime(3_600_000_000, 36_000_000_000)
folder, most = Path(sys.argv[1]), int(sys.argv[2])
ballast = folder / "ballast"
if most:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
else:
    ballast.write_bytes(bytes(1 << 20))
store = SqliteStore(folder / "sessions.db", 20.0)
store.prepare()
acknowledged = []
try:
    for number in range(10_000):
        name = number.to_bytes(32, "big")
        store.create(name, name * 1000, life)
        acknowledged.append(name)
except StoreUnavailable as error:
    said = str(error)
assert "disk" in said, said
assert len(acknowledged) > 3
def all_there():
    for name in acknowledged:
        found = store.read(name)
        assert found is not None and found.state == name * 1000
all_there()
assert store.read(len(acknowledged).to_bytes(32, "big")) is None
if most:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    ballast.unlink()
assert isinstance(store.write(acknowledged[0], 1, b"small", life), Written)
assert isinstance(store.write(acknowledged[0], 2, acknowledged[0] * 1000, life), Written)
all_there()
store.close()
store = SqliteStore(folder / "sessions.db", 20.0)
all_there()
store.close()
print("done")
"""


@pytest.mark.parametrize("kind", ["disk", "limit"])
def test_a_full_disk_ends_writes_and_loses_nothing(tmp_path: Path, kind: str) -> None:
    through: tuple[str, ...] = ()
    if kind == "disk" and (small := SmallDisk.at(tmp_path / "small", 4 << 20)).through:
        through, most, folder = small.through, 0, tmp_path / "small"
    else:  # where nothing may be mounted, a limit to the size of a file does
        most, folder = 1 << 20, tmp_path
    done = subprocess.run(
        [*through, sys.executable, "-c", _FILLING, folder, str(most)],
        cwd=TREE, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")


# Forks


_FORKING = """
import os, sys, threading
from pathlib import Path
from farmsyncd.sessions.stores.base import Lifetime, Written
from farmsyncd.sessions.stores.sqlite import SqliteStore

life = Lifetime(3_600_000_000, 36_000_000_000)
store = SqliteStore(Path(sys.argv[1]), 20.0)
store.prepare()
store.create(b"p" * 32, b"0", life)
done = threading.Event()
def keep_busy(number):
    mine, version = bytes([100 + number]) * 32, 1
    store.create(mine, b"thread", life)
    while not done.is_set():
        assert isinstance(store.write(mine, version, b"x", life), Written)
        version += 1
        assert store.read(b"p" * 32) is not None
threads = [threading.Thread(target=keep_busy, args=(number,)) for number in range(3)]
for thread in threads: thread.start()
children = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        mine = bytes([number]) * 32
        store.create(mine, b"child", life)
        for version in range(1, 15):
            assert isinstance(store.write(mine, version, b"x", life), Written)
        if number % 2:
            store.close()
        os._exit(0)
    children.append(pid)
done.set()
for thread in threads: thread.join()
store.close()  # before the children have ended: their log must not go with it
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
for number in range(4):
    assert store.read(bytes([number]) * 32).version == 15
store.close()
print("done")
"""


def test_a_fork_shares_no_connection_and_loses_no_write(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", _FORKING, path],
        cwd=TREE, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_fork_that_nobody_was_told_of_before_is_safe_too(store: SqliteStore) -> None:
    for file in (store._reading, store._writing):
        file.after_fork_in_child()
    assert state(store) == b"one"
    assert store._writing._lock.acquire(blocking=False)  # as when a thread that the child has not got held it
    store._writing.after_fork_in_child()
    assert isinstance(store.write(A, 1, b"two", LIFE), Written)


def test_a_process_that_leaves_takes_nothing_from_those_who_stay(path: Path, store: SqliteStore) -> None:
    leaves = """
import sys
from pathlib import Path
from farmsyncd.sessions.stores.base import Lifetime
from farmsyncd.sessions.stores.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), 20.0)
store.prepare()
assert store.read(b"a" * 32) is not None
store.close()
"""
    for version in range(1, 4):
        subprocess.run([sys.executable, "-c", leaves, path], cwd=TREE, env=environment(), check=True)
        assert isinstance(store.write(A, version, b"%d" % version, LIFE), Written)
    shutil.copytree(path.parent, path.parent.parent / "copy")
    copy = SqliteStore(path.parent.parent / "copy" / "sessions.db", PATIENT_S)
    assert state(copy) == b"3"
    copy.close()
