"""Which database a URL means, and what is said of a URL that means none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.postgres.store import PostgresStore
from farmsyncd.sessions.stores.sqlite import SqliteStore
from farmsyncd.sessions.stores.url import open_store
from tests.daemons import TREE, environment


def test_sqlite_takes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in (
        ("sqlite:///here.db", tmp_path / "here.db"),
        ("sqlite:///a/b.db", tmp_path / "a" / "b.db"),
        ("sqlite:////srv/s.db", Path("/srv/s.db")),
        ("sqlite:////srv/my%20shop%3F.db", Path("/srv/my shop?.db")),
    ):
        store = open_store(url)
        assert isinstance(store, SqliteStore)
        assert repr(store) == f"SqliteStore({path})"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_postgresql_is_shown_without_its_password(scheme: str) -> None:
    store = open_store(f"{scheme}://shop:s3cret@db.example:5433/farm?sslmode=require")
    assert isinstance(store, PostgresStore)
    assert repr(store) == "PostgresStore(postgresql://shop@db.example:5433/farm)"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "no such URL"),
        ("s.db", "no such URL"),
        ("/srv/s.db", "no such URL"),
        ("sqlite:s.db", "no such URL"),
        ("sqlite://s.db", "something else than a file's path"),
        ("sqlite://", "something else than a file's path"),
        ("sqlite:///", "something else than a file's path"),
        ("sqlite:///folder/", "something else than a file's path"),
        ("sqlite:///:memory:", "something else than a file's path"),
        ("sqlite:///s.db?mode=ro", "something else than a file's path"),
        ("sqlite:///s%00.db", "something else than a file's path"),
        ("redis://:s3cret@127.0.0.1/0", "begins with redis://"),
        ("postgresql+psycopg://shop:s3cret@127.0.0.1/farm", r"begins with postgresql\+psycopg://"),
        ("s3cret!://x", "no such URL"),
        ("postgresql://shop:s3cret@[::1/farm", "a URL that libpq does not take"),
    ],
)
def test_anything_else_is_refused_with_what_was_expected(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_store(url)
    assert "expected" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_psycopg_is_needed_for_postgresql_alone() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from farmsyncd.errors import ConfigError
from farmsyncd.sessions.stores.url import open_store
open_store("sqlite:///s.db")
try:
    open_store("postgresql://127.0.0.1/farm")
except ConfigError as error:
    print(error)
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"twisted", "psycopg_pool", "zope"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=TREE, capture_output=True, text=True, check=True
    )
    said, imported = done.stdout.splitlines()
    assert "pip install 'farmsync[postgres]'" in said
    assert imported == "[]"
