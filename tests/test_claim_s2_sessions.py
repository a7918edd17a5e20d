"""Seed 2, sessions: nodes that cache shoppers' sessions, over one database. Real daemons and real databases.

Copies in a node's memory are trusted for an hour here, so that nothing but the version in the shopper's cookie can tell
a node that its copy is old (and, for SQLite, the file itself).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from pathlib import Path

import attrs
import pytest

from farmsyncd.sessions.stores.url import open_store
from tests.browser import Browser
from tests.daemons import Daemon, Daemons
from tests.eventually import LIMIT, eventually
from tests.postgres import Postgres

LOCAL = "tcp:0:interface=127.0.0.1"
NOWHERE = "tcp:127.0.0.1:1"
TRUSTING = '[node]\n[node.session]\nrevalidate-after = "1h"\n'


@attrs.frozen
class Web:
    """A node that serves the shop."""

    daemon: Daemon

    def counters(self) -> dict[str, int]:
        """What its sessions have done."""
        connection = http.client.HTTPConnection(self.daemon.address("http").removeprefix("http://"), timeout=LIMIT)
        try:
            connection.request("GET", "/status")
            told: dict[str, int] = json.loads(connection.getresponse().read())["application"]["sessions"]
        finally:
            connection.close()
        return told

    def since(self, before: dict[str, int]) -> tuple[int, int, int]:
        """The hits, misses and revalidations since then."""
        now = self.counters()
        return (
            now["hits"] - before["hits"],
            now["misses"] - before["misses"],
            now["revalidations"] - before["revalidations"],
        )


class Shopper:
    """A client with cookies, who goes to whichever node the test says."""

    def __init__(self) -> None:
        self.browser = Browser("127.0.0.1")

    @property
    def id(self) -> str:
        """The session's id, from the cookie."""
        return (self.browser.value("farmsync") or "").partition(".")[0]

    def try_at(self, web: Web, method: str, path: str) -> tuple[int, str]:
        """One request; the status and the text."""
        connection = http.client.HTTPConnection(web.daemon.address("http").removeprefix("http://"), timeout=LIMIT)
        try:
            cookies = self.browser.header()
            connection.request(method, path, headers={} if cookies is None else {"Cookie": cookies})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        self.browser.receive(answer.headers.get_all("Set-Cookie") or [])
        return answer.status, text

    def look(self, web: Web) -> dict[str, int]:
        """What the node shows in the cart."""
        status, text = self.try_at(web, "GET", "/")
        assert status == 200, text
        cart: dict[str, int] = json.loads(text)["cart"]
        return cart

    def add(self, web: Web, article: str) -> dict[str, int]:
        """Put something into the cart; what the node shows then."""
        status, text = self.try_at(web, "POST", f"/?{article}")
        assert status == 200, text
        cart: dict[str, int] = json.loads(text)["cart"]
        return cart


def start(daemons: Daemons, tmp_path: Path, url: str, *names: str) -> list[Web]:
    """Nodes over one database."""
    config = tmp_path / "trusting.toml"
    config.write_text(TRUSTING)
    started = [
        daemons.start(
            "farmsync-node", "--data", NOWHERE, "--name", name, "--http", LOCAL, "--wsgi", "tests.applications:carts",
            "--sessions", url, "--config", str(config), name=name,
        )
        for name in names
    ]  # fmt: skip
    webs = [Web(one.ready()) for one in started]
    for web in webs:
        _settle(web, url)
    return webs


def _settle(web: Web, url: str) -> None:
    """Have the node use its database, and hear of the end of a session elsewhere.

    A node drops all its copies when it begins to listen to such news; what is counted below comes after that.
    """
    passer_by = Shopper()
    passer_by.add(web, "lamp")
    store = open_store(url)
    try:
        assert store.delete(hashlib.sha256(passer_by.id.encode()).digest())
    finally:
        store.close()
    eventually(lambda: passer_by.look(web) == {}, what="the node hears that a session has ended")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database for sessions."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    return str(request.getfixturevalue("postgres_url"))


def test_claim_s2_03_each_node_holds_sessions_in_its_cache_and_answers_from_it(
    daemons: Daemons, tmp_path: Path, url: str
) -> None:
    for web in start(daemons, tmp_path, url, "a", "b"):
        shopper = Shopper()
        shopper.add(web, "lamp")
        assert shopper.add(web, "lamp") == {"lamp": 2}
        assert shopper.look(web) == {"lamp": 2}
        before = web.counters()
        assert before["entries"] >= 1
        assert before["bytes"] > 0
        for _ in range(5):
            assert shopper.look(web) == {"lamp": 2}
        assert web.since(before) == (5, 0, 0), "all from the cache"


def test_claim_s2_03_what_is_in_the_cache_is_shown_while_the_database_is_away(
    daemons: Daemons, tmp_path: Path, own_postgres_url: str, postgres: Postgres
) -> None:
    a, b = start(daemons, tmp_path, own_postgres_url, "a", "b")
    shopper = Shopper()
    shopper.add(a, "lamp")
    postgres.stop()
    assert shopper.look(a) == {"lamp": 1}
    status, text = shopper.try_at(b, "GET", "/")
    assert (status, "Nothing was lost" in text) == (503, True), "b never had it"
    assert shopper.try_at(a, "POST", "/?radio")[0] == 503, "what is not stored is not said to be"
    assert shopper.try_at(b, "GET", "/empty")[0] == 200
    postgres.start()
    eventually(lambda: shopper.try_at(b, "GET", "/")[0] == 200, what="b finds the database by itself")
    assert shopper.look(b) == {"lamp": 1}
    assert shopper.look(a) == {"lamp": 1}


def test_claim_s2_04_a_node_starts_a_session_and_sends_its_id_in_its_first_response(
    daemons: Daemons, tmp_path: Path, url: str
) -> None:
    (web,) = start(daemons, tmp_path, url, "a")
    shopper, other = Shopper(), Shopper()
    assert shopper.look(web) == {}
    assert shopper.browser.header() is None, "there is no session as long as there is nothing in it"
    shopper.add(web, "lamp")
    other.add(web, "lamp")
    assert re.fullmatch("[A-Za-z0-9_-]{43}", shopper.id)
    assert shopper.id != other.id
    (cookie,) = shopper.browser.cookies
    assert cookie.http_only
    store = open_store(url)
    try:
        digests = {one.digest for one in store.find(b"", 10)}
    finally:
        store.close()
    assert digests == {hashlib.sha256(one.id.encode()).digest() for one in (shopper, other)}, "the database has no ids"
    made_up = Shopper()
    made_up.browser.receive([f"farmsync={'A' * 43}.1; Path=/; HttpOnly; SameSite=Lax"])
    assert made_up.add(web, "radio") == {"radio": 1}
    assert made_up.id not in {"A" * 43, shopper.id, other.id}, "an id that the server did not issue is not adopted"


def test_claim_s2_05_a_session_that_a_node_does_not_have_is_brought_in_from_the_database(
    daemons: Daemons, tmp_path: Path, url: str
) -> None:
    a, b = start(daemons, tmp_path, url, "a", "b")
    shopper, orphan = Shopper(), Shopper()
    for article in ("lamp", "lamp", "radio"):
        shopper.add(a, article)
        orphan.add(a, article)
    before = b.counters()
    assert shopper.look(b) == {"lamp": 2, "radio": 1}
    assert b.since(before) == (0, 1, 0), "one miss"
    assert shopper.look(b) == {"lamp": 2, "radio": 1}
    assert b.since(before) == (1, 1, 0), "and then it is there"
    a.daemon.kill()
    assert orphan.look(b) == {"lamp": 2, "radio": 1}, "nothing is lost with the node"
    assert orphan.add(b, "chair") == {"lamp": 2, "radio": 1, "chair": 1}


def test_claim_s2_06_a_node_can_tell_that_its_copy_is_old_and_reads_the_database(
    daemons: Daemons, tmp_path: Path, url: str
) -> None:
    a, b = start(daemons, tmp_path, url, "a", "b")
    shopper = Shopper()
    shopper.add(a, "lamp")
    assert shopper.look(b) == {"lamp": 1}
    for here, there, articles in ((a, b, {"lamp": 1, "radio": 1}), (b, a, {"lamp": 1, "radio": 2})):
        shopper.look(here)
        assert shopper.add(there, "radio") == articles
        before = here.counters()
        assert shopper.look(here) == articles, "at once, though its copy is trusted for an hour"
        assert here.since(before) == (0, 0, 1), "it had a copy, and found that it was old"
        assert shopper.look(here) == articles
        assert here.since(before) == (1, 0, 1), "and from now on it is the right one"
