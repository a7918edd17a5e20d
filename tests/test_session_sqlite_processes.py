"""A SQLite file of sessions that several processes come to and leave: nobody takes away what another one writes."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from farmsyncd.sessions.stores.base import Lifetime
from farmsyncd.sessions.stores.sqlite import SqliteStore
from tests.daemons import environment

LIFE = Lifetime(10**12, 10**12)
VISIT = """
import sys
from pathlib import Path
from farmsyncd.sessions.stores.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
print(*sorted(listed.digest[:1].decode() for listed in store.find(b"", 10)))
store.close()
"""


def visit(path: Path) -> str:
    """Another process opens the file, looks at all sessions, and leaves."""
    done = subprocess.run(
        [sys.executable, "-c", VISIT, str(path)], env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_process_that_leaves_takes_no_log_away_that_others_write_to(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SqliteStore(path)
    try:
        store.prepare()
        store.create(b"a" * 32, b"", LIFE)
        assert visit(path) == "a"
        store.create(b"b" * 32, b"", LIFE)
        assert visit(path) == "a b"
        assert (tmp_path / "sessions.db-wal").exists()
    finally:
        store.close()


def test_a_second_store_in_one_process_takes_no_locks_away_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    stores = [SqliteStore(path) for _ in range(2)]
    try:
        for number, store in enumerate(stores):
            store.prepare()
            store.create(b"%d" % number * 32, b"", LIFE)
        assert visit(path) == "0 1"
        stores[0].create(b"2" * 32, b"", LIFE)
        assert visit(path) == "0 1 2"
    finally:
        for store in stores:
            store.close()


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SqliteStore(path)
    try:
        store.prepare()
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    finally:
        store.close()
    assert set(modes.values()) == {0o600}
