"""Opening sessions: a copy is used when it can be trusted, and only then; else the database is asked once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.engine import Sessions
from farmsyncd.sessions.settings import SessionSettings
from tests.session_farm import QUIET, Farm, Node, SlowStore, foreign, known
from tests.sessions_memory import MemoryStore

EXACT = attrs.evolve(QUIET, revalidate_after_s=1e6)


@pytest.fixture
def farm() -> Farm:
    return Farm()


@pytest.fixture
def node(farm: Farm) -> Node:
    return farm.node()


def test_a_session_that_nothing_is_put_into_is_never_stored(node: Node) -> None:
    session = node.open(None)
    session["a"] = 1
    del session["a"]
    session.rotate()
    session.destroy()
    session.commit()
    assert (session.token, session.destroyed, node.calls()) == (None, False, {})


def test_a_hit_asks_the_database_nothing(node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    assert [node.shows(token) for _ in range(3)] == [{"a": 1}] * 3
    assert (node.calls(), node.sessions.statistics().hits) == ({}, 3)


def test_a_miss_is_exactly_one_call(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    other = farm.node()
    assert (other.shows(token), other.calls()) == ({"a": 1}, {"read": 1})
    assert (other.shows(token), other.calls()) == ({"a": 1}, {})


def test_an_id_that_was_never_issued_is_not_adopted(node: Node) -> None:
    session = node.open(foreign())
    assert (session.is_new, node.calls()) == (True, {"read": 1})
    session["a"] = 1
    session.commit()
    assert known(session).id != foreign().id
    assert node.shows(foreign()) == {}
    assert foreign().digest not in node.store.database.rows


def test_a_version_above_the_rows_costs_one_call_and_shows_the_row(node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    forged = attrs.evolve(token, version=2**53)
    session = node.open(forged)
    assert (dict(session), session.version, node.calls()) == ({"a": 1}, 1, {"revalidate": 1})


def test_a_copy_older_than_the_cookie_is_read_again_by_one_call(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    newer = farm.node().set(token, a=2)
    node.calls()
    assert node.shows(token) == {"a": 1}  # trusted: this client has not seen the change yet
    assert (node.shows(newer), node.calls()) == ({"a": 2}, {"revalidate": 1})
    assert (node.shows(newer), node.calls()) == ({"a": 2}, {})


def test_a_copy_is_checked_again_when_it_was_not_for_a_while(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    farm.pass_s(4.9)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {})
    farm.pass_s(0.2)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"revalidate": 1})
    farm.pass_s(4.9)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {})
    assert node.sessions.statistics().revalidations == 1


def test_with_revalidate_after_0_each_request_asks_once(farm: Farm) -> None:
    node = farm.node(attrs.evolve(QUIET, revalidate_after_s=0))
    token = node.begin(a=1)
    node.calls()
    assert (node.shows(token), node.shows(token), node.calls()) == ({"a": 1}, {"a": 1}, {"revalidate": 2})


def test_a_store_that_knows_of_each_change_is_asked_when_there_was_one_and_only_then(farm: Farm) -> None:
    node = farm.node(EXACT, MemoryStore(farm.database, exact=True))
    other = farm.node(EXACT, MemoryStore(farm.database, exact=True))
    token = node.begin(a=1)
    assert node.shows(token) == {"a": 1}
    node.calls()
    farm.pass_s(3600)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {})
    other.set(token, a=2)
    assert (node.shows(token), node.calls()) == ({"a": 2}, {"revalidate": 1})
    other.begin(b=1)  # the store only knows that something changed
    assert (node.shows(token), node.shows(token), node.calls()) == ({"a": 2}, {"a": 2}, {"revalidate": 1})


def test_where_the_store_knows_of_each_change_the_end_of_a_session_is_seen_at_once(farm: Farm) -> None:
    nodes = [farm.node(EXACT, MemoryStore(farm.database, exact=True, news_arrive=False)) for _ in range(2)]
    token = nodes[0].begin(a=1)
    assert nodes[1].shows(token) == {"a": 1}
    nodes[0].end(token)
    assert nodes[1].shows(token) == {}


def test_no_copy_is_trusted_while_a_store_that_knows_of_each_change_cannot_tell(farm: Farm) -> None:
    store = MemoryStore(farm.database, exact=True)
    node = farm.node(QUIET, store)
    token = node.begin(a=1)
    assert node.shows(token) == {"a": 1}
    node.calls()
    store.exact = False
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"revalidate": 1})
    store.exact = True
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"revalidate": 1})


def test_an_expired_session_is_not_shown_from_a_copy(farm: Farm) -> None:
    node = farm.node(SessionSettings(idle_s=10, revalidate_after_s=60, sweep_every_s=0))
    token = node.begin(a=1)
    farm.pass_s(9.99)
    assert node.shows(token) == {"a": 1}
    farm.pass_s(0.02)
    assert node.shows(token) == {}
    assert node.open(token).is_new


def test_how_wrong_a_nodes_clock_is_does_not_matter(farm: Farm, node: Node) -> None:
    far = attrs.evolve(farm, now_s=-5e8)
    token = node.begin(a=1)
    other = far.node()
    assert other.shows(token) == {"a": 1}
    farm.database.pass_s(13 * 86_400)
    far.now_s += 13 * 86_400
    other.set(token, a=2)
    farm.database.pass_s(13 * 86_400)
    farm.now_s += 26 * 86_400
    assert node.shows(token) == {"a": 2}


def test_end_of_a_session_elsewhere_is_seen_after_revalidate_after_at_the_latest(farm: Farm) -> None:
    node = farm.node(store=MemoryStore(farm.database, news_arrive=False))
    token = node.begin(a=1)
    farm.node().end(token)
    assert node.shows(token) == {"a": 1}
    farm.pass_s(5)
    assert node.shows(token) == {}
    assert node.sessions.statistics().entries == 0


def test_news_of_an_end_is_followed_at_once(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    farm.node().end(token)
    assert node.shows(token) == {}


def test_when_news_may_have_been_missed_every_copy_is_read_again(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    farm.database.news(None)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"read": 1})


def test_a_database_that_was_restored_from_a_backup_is_believed(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    backup = dict(farm.database.rows)
    newer = token
    for number in range(5):
        newer = node.set(newer, a=number)
    farm.database.rows.clear()
    farm.database.rows.update(backup)
    farm.pass_s(5)
    assert (node.shows(newer), node.open(newer).version) == ({"a": 1}, 1)
    session = node.open(newer)
    session["b"] = 1
    session.commit()
    assert (node.shows(newer), session.version) == ({"a": 1, "b": 1}, 2)


def test_open_cached_never_asks_the_database(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    hit, new = node.sessions.open_cached(token), node.sessions.open_cached(None)
    assert hit is not None
    assert new is not None
    assert (dict(hit), new.is_new) == ({"a": 1}, True)
    farm.pass_s(6)
    assert node.sessions.open_cached(token) is None
    assert node.sessions.open_cached(foreign()) is None
    assert node.calls() == {}
    assert attrs.astuple(node.sessions.statistics())[:3] == (1, 0, 0)


def test_forget_drops_a_copy(node: Node) -> None:
    token = node.begin(a=1)
    node.calls()
    node.sessions.forget(token.digest)
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"read": 1})


def test_an_answer_that_is_overtaken_by_a_change_does_not_become_the_copy(farm: Farm) -> None:
    store = SlowStore(farm.database)
    node = farm.node(store=store)
    token = farm.node().begin(a=1)
    newer: list[Token] = []
    store.on_its_way = lambda: newer.append(node.set(token, a=2))
    assert node.shows(token) == {"a": 1}  # as if it had come first
    node.calls()
    assert (node.shows(newer[0]), node.calls()) == ({"a": 2}, {})


@pytest.mark.parametrize("overtake", [Node.end, Node.rotate])
def test_an_answer_that_is_overtaken_by_the_sessions_end_or_rotation_does_not_become_the_copy(
    farm: Farm, overtake: Callable[[Node, Token], object]
) -> None:
    store = SlowStore(farm.database, news_arrive=False)
    node = farm.node(store=store)
    token = farm.node().begin(a=1)
    store.on_its_way = lambda: overtake(node, token)
    assert node.shows(token) == {"a": 1}
    assert node.shows(token) == {}


def test_what_changes_while_the_answer_is_on_its_way_is_not_taken_for_known(farm: Farm) -> None:
    store = SlowStore(farm.database, exact=True)
    node = farm.node(EXACT, store)
    token = farm.node().begin(a=1)
    store.on_its_way = lambda: farm.node().set(token, a=2)
    assert node.shows(token) == {"a": 1}
    assert node.shows(token) == {"a": 2}


def test_the_age_of_a_copy_counts_from_before_the_question(farm: Farm) -> None:
    store = SlowStore(farm.database)
    node = farm.node(store=store)
    token = farm.node().begin(a=1)
    store.on_its_way = lambda: farm.pass_s(4)
    assert node.shows(token) == {"a": 1}
    farm.pass_s(2)
    node.calls()
    assert (node.shows(token), node.calls()) == ({"a": 1}, {"revalidate": 1})


# -- by URL -----------------------------------------------------------------------------------------------------------


def test_sessions_are_opened_by_the_url_of_their_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    sessions = Sessions.at(url, QUIET)
    session = sessions.open(None)
    session["a"] = 1
    session.commit()
    sessions.close()
    again = Sessions.at(url, QUIET)
    assert dict(again.open(session.token)) == {"a": 1}
    again.close()


def test_a_program_starts_while_its_database_is_away_and_finds_it_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(away=True)
    monkeypatch.setattr("farmsyncd.sessions.stores.url.open_store", lambda _url: store)
    sessions = Sessions.at("somewhere", QUIET)
    assert (sessions.open(None).is_new, len(caplog.records)) == (True, 1)
    with pytest.raises(StoreUnavailable):
        sessions.open(foreign())
    store.away = False
    assert sessions.open(foreign()).is_new


def test_a_database_that_is_not_ours_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def before(_name: str) -> None:
        raise WrongSchema("expected farmsync's tables, found others")

    store.before = before
    monkeypatch.setattr("farmsyncd.sessions.stores.url.open_store", lambda _url: store)
    with pytest.raises(WrongSchema):
        Sessions.at("somewhere", QUIET)
    assert store.closed
