"""``farmsync sessions`` as operators run it: on a real database that real sessions are in."""

from __future__ import annotations

import datetime
import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from farmsyncd.cli.main import farmsync, run
from farmsyncd.cli.sessions import asking
from farmsyncd.sessions import Sessions, SessionSettings
from tests.sessions_memory import MemoryStore

Capture = pytest.CaptureFixture[str]


class Operated:
    """A database with sessions, and the command in this process, with FARMSYNC_SESSIONS naming it."""

    def __init__(self, url: str, capsys: Capture) -> None:
        self.url = url
        self._sessions = Sessions.at(self.url)
        self._capsys = capsys

    def begin(self, **state: Any) -> str:
        """A new session with this state; its digest."""
        session = self._sessions.open(None)
        session.update(state)
        session.commit()
        digest = session.digest
        session.close()
        assert digest is not None
        return digest

    def close(self) -> None:
        """Close the database."""
        self._sessions.close()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The command's status, output and errors."""
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FARMSYNC_SESSIONS", self.url)
            status = run(["sessions", *arguments])
        told = self._capsys.readouterr()
        return status, told.out, told.err

    def ok(self, *arguments: str) -> str:
        """What a command prints that must end well."""
        status, out, err = self.run(*arguments)
        assert status == 0, err
        return out

    def json(self, *arguments: str) -> Any:
        """The same as JSON."""
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, expected: int, *arguments: str) -> str:
        """What a command says that must fail with this exit status."""
        status, out, err = self.run(*arguments)
        assert (status, out) == (expected, ""), err
        assert err.startswith("farmsync: ")
        return err


@pytest.fixture(params=["sqlite", "postgresql"])
def operated(request: pytest.FixtureRequest, tmp_path: Path, capsys: Capture) -> Any:
    sqlite = f"sqlite:///{tmp_path}/sessions.db"
    one = Operated(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url"), capsys)
    yield one
    one.close()


def test_sessions_are_listed_by_their_digests_the_latest_changed_first(operated: Operated) -> None:
    assert operated.ok("list") == "No session lives.\n"
    digests = [operated.begin(cart=["tea"] * number) for number in range(3)]
    lines = operated.ok("list").splitlines()
    assert lines[0].split() == ["SESSION", "VERSION", "SIZE", "CHANGED", "CREATED", "EXPIRES"]
    assert [line.split()[0] for line in lines[1:]] == [one[:12] for one in reversed(digests)]
    told = operated.json("list", "--limit", "2")
    assert [one["digest"] for one in told["sessions"]] == [digests[2], digests[1]]
    assert told["more"] is True
    assert {*told["sessions"][0]} == {
        "digest", "version", "bytes", "created_ns", "changed_ns", "idle_expires_ns", "absolute_expires_ns",
    }  # fmt: skip
    assert "There are more than 2" in operated.ok("list", "--limit", "2")
    for length in (1, 2, 5, 64):
        told = operated.json("list", digests[0][:length])
        assert digests[0] in [one["digest"] for one in told["sessions"]]
        assert all(one["digest"].startswith(digests[0][:length]) for one in told["sessions"])
    assert "No session whose digest begins with" in operated.ok("list", other_than(digests))


def other_than(digests: list[str]) -> str:
    """A digest that none of these is."""
    return next(one for one in (f"{number:064x}" for number in range(100)) if one not in digests)


def test_a_session_is_shown_by_keys_kinds_and_sizes_and_its_values_only_when_asked_for(operated: Operated) -> None:
    digest = operated.begin(
        name="Zoë \x1b[2J", cart={"tea": 2}, price=Decimal("1.50"), since=datetime.date(2026, 1, 2), none=None
    )
    shown = operated.ok("show", digest[:9])
    assert shown.startswith(digest)
    rows = {line.split()[0]: line.split()[1] for line in shown.splitlines() if len(line.split()) == 4}
    kinds = {"name": "str[8]", "cart": "dict[1]", "price": "Decimal", "since": "date", "none": "NoneType"}
    assert rows.items() >= kinds.items()
    assert "tea" not in shown
    shown = operated.ok("show", digest, "--values")
    assert "{'tea': 2}" in shown
    assert "\x1b[2J" not in shown, "a client's text must not reach the terminal as it is"
    told = operated.json("show", digest[:9])
    assert told["digest"] == digest
    assert [sorted(one) for one in told["keys"]] == [["bytes", "key", "kind"]] * 5
    values = {one["key"]: one["value"] for one in operated.json("show", digest, "--values")["keys"]}
    assert values["cart"] == {"tea": 2}
    assert values["price"] == "Decimal('1.50')"


def test_a_prefix_that_several_sessions_have_is_refused_with_the_candidates(operated: Operated) -> None:
    digests = [operated.begin(number=number) for number in range(17)]
    first = next(letter for letter in "0123456789abcdef" if sum(one[0] == letter for one in digests) > 1)
    told = operated.fails(65, "show", first)
    candidates = [one for one in digests if one[0] == first]
    assert "say more of it" in told
    assert all(one in told for one in candidates[-10:])
    assert "say more of it" in operated.fails(65, "revoke", "--yes", candidates[0], first)
    assert operated.json("stats")["live"] == 17, "nothing is revoked when something is refused"


def test_revoked_sessions_are_gone(operated: Operated) -> None:
    digests = [operated.begin(number=number) for number in range(5)]
    assert operated.ok("revoke", "--yes", digests[0], digests[0][:20]) == "1 session revoked\n"
    assert "there is none that lives" in operated.fails(65, "show", digests[0])
    assert "there is none that lives" in operated.fails(65, "revoke", "--yes", digests[0])
    assert operated.json("revoke", "--yes", digests[1], digests[2]) == {"revoked": 2, "gone": 0}
    assert operated.json("revoke", "--all", "--yes") == {"revoked": 2, "gone": 0}
    assert operated.json("revoke", "--all", "--yes") == {"revoked": 0, "gone": 0}
    assert operated.json("stats")["live"] == 0


def test_nothing_is_revoked_before_somebody_has_agreed(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = operated.begin(number=1)
    assert "expected --yes, since nobody can be asked here" in operated.fails(64, "revoke", digest)
    monkeypatch.setattr("farmsyncd.cli.sessions.revoke._asked", lambda: True)
    asked = CliRunner().invoke(farmsync, ["sessions", "revoke", digest, "--store", operated.url], input="n\n")
    assert asked.exit_code == 1
    assert operated.json("stats")["live"] == 1
    asked = CliRunner().invoke(farmsync, ["sessions", "revoke", digest, "--store", operated.url], input="y\n")
    assert "1 session revoked" in asked.output
    assert operated.json("stats")["live"] == 0


def test_sessions_are_counted(operated: Operated) -> None:
    assert operated.json("stats") == {
        "live": 0, "expired": 0, "bytes": 0, "largest_bytes": 0, "oldest_created_ns": None,
    }  # fmt: skip
    operated.begin(text="x" * 1000)
    assert operated.ok("stats").startswith("1 session lives\n")
    operated.begin(text="x" * 2000)
    told = operated.json("stats")
    assert told["live"] == 2
    assert 3000 < told["bytes"] < 3100
    assert 2000 < told["largest_bytes"] < 2100
    shown = operated.ok("stats")
    assert shown.startswith("2 sessions live\n")
    assert "the largest 2.0 kB" in shown


def test_use_prolongs_a_session_only_until_its_absolute_end(operated: Operated) -> None:
    by_use = operated.begin(number=1)
    sessions = Sessions.at(operated.url, SessionSettings(idle_s=7200, absolute_s=3600))
    session = sessions.open(None)
    session["number"] = 2
    session.commit()
    sessions.close()
    assert "unless it is used before" in operated.ok("show", by_use)
    assert session.digest is not None
    assert "unless it is used before" not in operated.ok("show", session.digest)


def test_what_is_wrong_is_told_with_the_exit_status_of_its_kind(operated: Operated, tmp_path: Path) -> None:
    assert "expected the beginning of a digest" in operated.fails(64, "show", "xyz")
    assert "expected the beginning of a digest" in operated.fails(64, "show", "")
    assert "or --all" in operated.fails(64, "revoke", "--yes")
    assert "or --all" in operated.fails(64, "revoke", "--yes", "--all", "ab")
    operated.url = "mysql://root:secret@db/x"
    told = operated.fails(78, "list")
    assert "sqlite:///relative.db" in told
    assert "secret" not in told
    operated.url = "postgresql://shop:secret@127.0.0.1:1/shop"
    told = operated.fails(69, "list")
    assert "127.0.0.1" in told
    assert "secret" not in told
    operated.url = f"sqlite:///{tmp_path}/nowhere.db"
    assert "there is none; name another" in operated.fails(69, "stats")
    assert not (tmp_path / "nowhere.db").exists(), "looking makes nothing"
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE invoices (number INTEGER)")
    other.close()
    operated.url = f"sqlite:///{tmp_path}/other.db"
    assert "other.db" in operated.fails(78, "list")


@pytest.mark.parametrize("command", [["list"], ["show", "ab"], ["stats"], ["revoke", "--yes", "ab"]], ids=" ".join)
def test_looking_into_an_empty_database_makes_nothing_there(
    postgres_url: str, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "empty.db").touch()
    for url, says in ((postgres_url, "no such tables"), (f"sqlite:///{tmp_path}/empty.db", "it is empty")):
        monkeypatch.setenv("FARMSYNC_SESSIONS", url)
        assert run(["sessions", *command]) == 69
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("farmsync: expected farmsync's sessions in ")
        assert says in told.err
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(b"SELECT count(*) FROM pg_class WHERE relname LIKE 'farmsync%'").fetchone()
    assert found == (0,)
    assert [(one.name, one.stat().st_size) for one in tmp_path.iterdir()] == [("empty.db", 0)]


def test_a_prefix_of_an_odd_length_finds_what_begins_with_it() -> None:
    store = MemoryStore()
    from farmsyncd.sessions.stores.base import Lifetime

    for first in range(0, 256, 8):
        store.create(bytes([first]) * 32, b"\x80", Lifetime(10**9, 10**9))
    assert {one.digest.hex()[:2] for one in asking.beginning(store, "a", 100)} == {"a0", "a8"}
    assert len(asking.beginning(store, "", 7)) == 7
