"""The sessions of a node's application: their database, its absence, and what the node says of them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from farmsyncd.sessions import Sessions
from tests.daemons import Daemon, Daemons
from tests.eventually import eventually
from tests.postgres import Postgres
from tests.test_node_application import LOCAL, NOWHERE, ask

COUNTING = "tests.applications:counting"


def node(daemons: Daemons, sessions: str, *arguments: str) -> Daemon:
    """A node with an application that counts in its sessions."""
    return daemons.start(
        "farmsync-node", "--data", NOWHERE, "--name", "web", "--http", LOCAL, "--wsgi", COUNTING,
        "--sessions", sessions, *arguments, name="web",
    )  # fmt: skip


def counted(daemon: Daemon, cookie: str = "") -> tuple[int, str, str]:
    """The status, the text, and the cookie that the client has afterwards."""
    answer, body = ask(daemon, "GET", "/", **({"Cookie": cookie} if cookie else {}))
    return answer.status, body.decode(), (answer.headers["Set-Cookie"] or cookie).partition(";")[0]


def test_the_application_has_sessions_that_the_node_counts(daemons: Daemons, tmp_path: Path) -> None:
    web = node(daemons, f"sqlite:///{tmp_path}/sessions.db")
    status, text, cookie = counted(web)
    assert (status, text) == (200, "1\n")
    status, text, cookie = counted(web, cookie)
    assert (status, text) == (200, "2\n")
    told = json.loads(ask(web, "GET", "/status")[1])["application"]["sessions"]
    assert (told["unavailable"], told["entries"], told["conflicts"]) == (None, 1, 0)
    assert (told["hits"] + told["revalidations"], told["misses"]) == (1, 0)
    assert told["bytes"] > 0
    metrics = ask(web, "GET", "/metrics")[1].decode()
    assert "\nfarmsync_node_session_entries 1.0\n" in metrics
    assert "\nfarmsync_node_session_database_available 1.0\n" in metrics
    assert f"\nfarmsync_node_session_revalidations_total {told['revalidations']}.0\n" in metrics
    assert (tmp_path / "sessions.db-wal").exists()
    assert web.stop()
    assert not (tmp_path / "sessions.db-wal").exists(), "the database was closed in good order"
    assert "Traceback" not in web.log


def test_a_database_that_is_away_at_the_start_is_told_and_found_when_it_is_back(
    daemons: Daemons, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    Sessions.at(url).close()
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")  # nobody else can write
    web = node(daemons, url)
    answer, body = ask(web, "GET", "/")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert body.startswith(b"Sessions cannot be kept at this moment.")
    assert ask(web, "GET", "/free")[1] == b"free\n"
    assert str(tmp_path) in json.loads(ask(web, "GET", "/status")[1])["application"]["sessions"]["unavailable"]
    assert b"\nfarmsync_node_session_database_available 0.0\n" in ask(web, "GET", "/metrics")[1]
    assert "sessions answer 503 until their database is there" in web.log
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: counted(web)[:2] == (200, "1\n"))
    assert "the sessions' database is there" in web.log
    assert json.loads(ask(web, "GET", "/status")[1])["application"]["sessions"]["unavailable"] is None
    assert "Traceback" not in web.log


def test_a_node_starts_without_its_database_server_and_finds_it(
    daemons: Daemons, own_postgres_url: str, postgres: Postgres
) -> None:
    postgres.stop()
    web = node(daemons, own_postgres_url)
    assert ask(web, "GET", "/free")[1] == b"free\n"
    assert counted(web)[0] == 503
    assert "sessions answer 503 until their database is there" in web.log
    postgres.start()
    eventually(lambda: counted(web)[:2] == (200, "1\n"))
    assert json.loads(ask(web, "GET", "/status")[1])["application"]["sessions"]["unavailable"] is None
    postgres.stop()
    eventually(lambda: counted(web)[0] == 503)
    assert "to answer" in json.loads(ask(web, "GET", "/status")[1])["application"]["sessions"]["unavailable"]
    eventually(
        lambda: "[farmsync.sessions#warn] the sessions' database is away" in web.log, what="the node's log says so"
    )
    assert "Traceback" not in web.log


@pytest.mark.parametrize(
    ("sessions", "line"),
    [
        ("sqlite:///", "expected sqlite:///relative.db"),
        ("mysql://root:secret@db/x", "expected the URL of a database"),
        ("sqlite:///{}/no-folder/sessions.db", "to be a file for sessions, and it cannot be used"),
        ("sqlite:///{}/other.db", "other.db"),
    ],
)
def test_sessions_that_cannot_be_had_are_one_line_and_status_78(
    daemons: Daemons, tmp_path: Path, sessions: str, line: str
) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE invoices (number INTEGER)")
    other.close()
    web = node(daemons, sessions.format(tmp_path))
    assert web.wait() == 78
    assert len([one for one in web.log.splitlines() if line in one]) == 1, web.log
    assert "Traceback" not in web.log
    assert "secret" not in web.log
