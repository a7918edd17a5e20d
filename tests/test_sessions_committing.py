"""Committing sessions: conditional writes, merges, rotations and ends; what happens when the answer is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from farmsyncd.core.session.faults import SessionConflict, SessionError, SessionGone, StoreUnavailable
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import SessionSettings
from tests.session_farm import QUIET, Farm, Node, known

EXACT = attrs.evolve(QUIET, revalidate_after_s=1e6)


@pytest.fixture
def farm() -> Farm:
    return Farm()


@pytest.fixture
def node(farm: Farm) -> Node:
    return farm.node()


def test_a_change_is_one_conditional_write(node: Node) -> None:
    token = node.begin(a=1)
    assert node.calls() == {"create": 1}
    newer = node.set(token, a=2)
    assert (node.calls(), newer) == ({"write": 1}, attrs.evolve(token, version=2))
    assert (node.shows(newer), node.calls()) == ({"a": 2}, {})


def test_a_change_over_another_nodes_is_merged(farm: Farm, node: Node) -> None:
    token = node.begin(a=1, b=1, c=1, d=1)
    session = node.open(token)
    session["a"] = 2
    del session["c"]
    other = farm.node().open(token)
    other["b"] = 2
    del other["d"]
    other.commit()
    node.calls()
    session.commit()
    assert (node.calls(), session.version, session.own_writes) == ({"write": 2}, 3, 1)
    assert dict(session) == node.shows(token) == {"a": 2, "b": 2}
    assert node.sessions.statistics().merges == 1


def test_a_change_over_another_one_in_this_process_is_merged_without_a_vain_write(node: Node) -> None:
    token = node.begin(a=1, b=1)
    session = node.open(token)
    session["a"] = 2
    node.set(token, b=2)
    node.calls()
    session.commit()
    assert (node.calls(), node.shows(token)) == ({"write": 1}, {"a": 2, "b": 2})


@pytest.mark.parametrize("theirs", [{"a": 2}, {"a": 7}, {"a": None}])
def test_a_key_that_both_changed_is_a_conflict_that_stores_nothing(farm: Farm, node: Node, theirs: Any) -> None:
    token = node.begin(a=1, b=1)
    session = node.open(token)
    session.update(a=2, b=2)
    other = farm.node().open(token)
    other.update(theirs)
    other.commit()
    with pytest.raises(SessionConflict, match="'a'"):
        session.commit()
    farm.pass_s(5)
    assert node.shows(token) == {"a": theirs["a"], "b": 1}
    assert node.sessions.statistics().conflicts == 1


def test_others_that_come_first_each_time_are_merged_up_to_five_times(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    other = farm.node()

    def come_first(times: int) -> None:
        left = list(range(times))

        def before(name: str) -> None:
            if name == "write" and left:
                other.set(known(other.open(token)), **{f"other {times} {left.pop()}": 1})

        node.store.before = before

    come_first(5)
    session = node.open(token)
    session["a"] = 2
    session.commit()
    assert (len(dict(session)), session["a"], len(farm.pauses)) == (6, 2, 4)
    come_first(6)
    with pytest.raises(SessionConflict):
        node.set(token, a=3)
    node.store.before = lambda _name: None
    farm.pass_s(5)
    assert node.shows(token)["a"] == 2


def test_an_ended_session_is_not_raised_from_the_dead(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session["a"] = 2
    farm.node().end(token)
    with pytest.raises(SessionGone):
        session.commit()
    assert (dict(session), node.shows(token), farm.database.rows) == ({"a": 2}, {}, {})


def test_an_expired_session_is_not_raised_from_the_dead(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    farm.pass_s(14 * 86_400)
    session["a"] = 2
    with pytest.raises(SessionGone):
        session.commit()
    assert node.shows(token) == {}


def test_a_state_that_has_become_large_is_warned_of_once(farm: Farm, caplog: pytest.LogCaptureFixture) -> None:
    node = farm.node(attrs.evolve(QUIET, warn_bytes=1000))
    token = node.begin(a=1)
    with caplog.at_level(logging.WARNING, "farmsync.sessions"):
        node.set(token, big="x" * 1000)
        node.set(node.set(token, a=2), a=3)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "has become 1011 bytes large; its largest keys are 'big' (1003), 'a' (1)" in line
    assert (token.digest.hex()[:12] in line, token.id in line) == (True, False)


def test_an_empty_session_gets_a_row_when_that_is_wanted(node: Node) -> None:
    session = node.open(None)
    node.sessions.commit(session, even_empty=True)
    assert (session.is_new, node.calls(), node.shows(known(session))) == (False, {"create": 1}, {})
    later = node.exchange().session
    node.sessions.commit(later, even_empty=True)
    assert (later.is_new, later.version) == (False, 1)


def test_change_opens_applies_and_commits(node: Node) -> None:
    token = node.begin(n=1)
    session = node.sessions.change(token, lambda session: session.update(n=session["n"] + 1))
    assert (node.shows(token), session.version) == ({"n": 2}, 2)
    fresh = node.sessions.change(None, lambda session: session.update(n=1))
    assert node.shows(known(fresh)) == {"n": 1}


def test_settings_beyond_all_measure_are_a_century(farm: Farm) -> None:
    node = farm.node(SessionSettings(idle_s=float("inf"), absolute_s=1e300, sweep_every_s=0))
    assert node.shows(node.begin(a=1)) == {"a": 1}


def test_rotation_gives_a_new_id_and_ends_the_old_one_at_once(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    assert farm.node().shows(token) == {"a": 1}
    new = node.rotate(token)
    assert (node.calls()["rotate"], new.id == token.id, new.version) == (1, False, 2)
    assert (node.shows(new), node.shows(token)) == ({"a": 1}, {})
    assert list(farm.database.rows) == [new.digest]


def test_rotation_takes_this_requests_changes_with_it(node: Node) -> None:
    session = node.open(node.begin(a=1, b=1))
    session.rotate()
    session["a"] = 2
    del session["b"]
    session.commit()
    assert (dict(session), node.shows(known(session)), session.rotating) == ({"a": 2}, {"a": 2}, False)


def test_rotation_of_a_session_that_another_request_changed_takes_that_along(farm: Farm, node: Node) -> None:
    token = node.begin(a=1, b=1)
    session = node.open(token)
    session.rotate()
    session["a"] = 2
    farm.node().set(token, b=2, c=2)
    node.calls()
    session.commit()
    assert (node.calls(), session.version) == ({"rotate": 2}, 3)
    assert dict(session) == node.shows(known(session)) == {"a": 2, "b": 2, "c": 2}
    assert (list(farm.database.rows), node.shows(token)) == ([known(session).digest], {})


def test_rotation_that_conflicts_leaves_the_old_id_as_it_was(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.rotate()
    session["a"] = 2
    farm.node().set(token, a=3)
    with pytest.raises(SessionConflict):
        session.commit()
    farm.pass_s(5)
    assert (node.shows(token), session.id, session.rotating) == ({"a": 3}, token.id, True)


def test_of_two_rotations_at_once_the_second_finds_the_session_gone(node: Node) -> None:
    token = node.begin(a=1)
    one, other = node.open(token), node.open(token)
    one.rotate()
    other.rotate()
    one.commit()
    with pytest.raises(SessionGone):
        other.commit()
    assert len(node.store.database.rows) == 1


def test_destroy_ends_the_session_at_commit(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session["b"] = 1
    session.destroy()
    assert (dict(session), session.is_new, session.modified, node.shows(token)) == ({}, True, True, {"a": 1})
    session.commit()
    assert (session.destroyed, session.modified, node.shows(token), farm.database.rows) == (True, False, {}, {})


def test_what_is_put_in_after_destroy_is_a_new_session(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.rotate()
    session.destroy()
    session["farewell"] = True
    session.commit()
    new = known(session)
    assert (new.id == token.id, new.version, node.shows(new), node.shows(token)) == (False, 1, {"farewell": True}, {})
    session.destroy()
    session.commit()
    assert (farm.database.rows, node.shows(new)) == ({}, {})


def test_destroy_ends_a_session_that_another_request_is_changing(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.destroy()
    farm.node().set(token, a=2)
    session.commit()
    assert farm.database.rows == {}


def test_destroy_of_a_session_that_has_ended_is_no_error(node: Node) -> None:
    token = node.begin(a=1)
    one, other = node.open(token), node.open(token)
    one.destroy()
    other.destroy()
    one.commit()
    other.commit()
    assert (one.destroyed, other.destroyed) == (True, True)


def test_a_state_that_cannot_be_stored_ends_nothing(node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.destroy()
    session["a"] = "x" * 100_000
    with pytest.raises(SessionError):
        session.commit()
    assert node.shows(token) == {"a": 1}


TOUCHY = SessionSettings(idle_s=100, absolute_s=1000, revalidate_after_s=0, sweep_every_s=0)


def look(node: Node, token: Token) -> Session:
    session = node.open(token)
    _ = dict(session)
    session.commit()
    return session


def test_a_session_that_is_used_lives_on_by_one_write_each_tenth_of_its_idle_time(farm: Farm) -> None:
    node = farm.node(TOUCHY)
    token = node.begin(a=1)
    farm.pass_s(9)
    node.calls()
    assert (look(node, token).version, node.calls()) == (1, {"revalidate": 1})
    farm.pass_s(2)
    assert (look(node, token).version, node.calls()) == (2, {"revalidate": 1, "write": 1})
    farm.pass_s(9)
    assert (look(node, token).version, node.calls()) == (2, {"revalidate": 1})
    farm.pass_s(90)
    assert look(node, token).version == 3
    farm.pass_s(99)
    assert node.shows(token) == {"a": 1}


def test_no_touch_is_tried_when_it_could_not_make_the_session_live_longer(farm: Farm) -> None:
    node = farm.node(TOUCHY)
    token = node.begin(a=1)
    for _ in range(18):
        farm.pass_s(50)
        look(node, token)
    node.calls()
    farm.pass_s(50)
    assert (node.shows(token), look(node, token).version, node.calls()) == ({"a": 1}, 19, {"revalidate": 2})
    farm.pass_s(50)
    assert node.shows(token) == {}


def test_a_touch_that_comes_too_late_is_no_error(farm: Farm) -> None:
    node, other = farm.node(TOUCHY), farm.node(TOUCHY)
    token = node.begin(a=1)
    farm.pass_s(50)
    session = node.open(token)
    assert session["a"] == 1
    other.set(token, a=2)
    session.commit()
    assert (session.version, session["a"], node.shows(token)) == (1, 1, {"a": 2})
    farm.pass_s(50)
    session = node.open(token)
    other.end(token)
    session.commit()
    assert node.shows(token) == {}


@pytest.mark.parametrize("lost", [False, True])
def test_a_touch_that_the_database_does_not_answer_is_no_error(farm: Farm, lost: bool) -> None:
    node = farm.node(attrs.evolve(TOUCHY, revalidate_after_s=60))
    token = node.begin(a=1)
    farm.pass_s(50)
    session = node.open(token)
    assert session["a"] == 1
    node.store.lose_answers, node.store.away = int(lost), not lost
    session.commit()
    assert (session.version, node.shows(token)) == (1, {"a": 1})  # a trusted copy still serves
    node.store.away = False
    session = node.open(token)
    session["a"] = 2
    session.commit()
    assert node.shows(token) == {"a": 2}


def test_copies_serve_on_while_the_database_is_away_until_they_are_too_old(farm: Farm, node: Node) -> None:
    token = node.begin(a=1)
    farm.pass_s(3)
    node.store.away = True
    assert node.shows(token) == {"a": 1}
    farm.pass_s(2)
    with pytest.raises(StoreUnavailable):
        node.open(token)
    assert node.open(None).is_new
    node.store.away = False
    assert node.shows(token) == {"a": 1}


@pytest.mark.parametrize("doing", [lambda one: one.update(a=2), lambda one: one.rotate(), lambda one: one.destroy()])
def test_a_write_fails_at_once_while_the_database_is_away_and_its_copy_is_dropped(
    node: Node, doing: Callable[[Session], object]
) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    doing(session)
    node.store.away = True
    with pytest.raises(StoreUnavailable):
        session.commit()
    assert node.sessions.statistics().entries == 0
    with pytest.raises(StoreUnavailable):
        node.open(token)
    node.store.away = False
    assert node.shows(token) == {"a": 1}
    session.commit()
    assert node.shows(token) == ({"a": 2} if "a" in session and session["a"] == 2 else {})


def test_a_write_of_which_the_answer_was_lost_is_never_shown_as_undone(node: Node) -> None:
    token = node.begin(n=0)
    session = node.open(token)
    session["n"] = 1
    node.store.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        session.commit()
    assert node.shows(token) == {"n": 1}
    with pytest.raises(SessionConflict):  # it may have been written, so it is not written twice
        session.commit()


def test_a_new_session_of_which_the_answer_was_lost_gets_another_id(node: Node) -> None:
    session = node.open(None)
    session["a"] = 1
    node.store.lose_answers = 1
    with pytest.raises(StoreUnavailable):
        session.commit()
    session.commit()
    assert (node.shows(known(session)), len(node.store.database.rows)) == ({"a": 1}, 2)


def test_it_is_logged_once_that_the_database_is_away_and_once_that_it_is_back(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    token = node.begin(a=1)
    with caplog.at_level(logging.DEBUG, "farmsync.sessions"):
        node.store.away = True
        for _ in range(3):
            node.sessions.forget(token.digest)
            with pytest.raises(StoreUnavailable):
                node.open(token)
        node.store.away = False
        node.shows(token)
        node.shows(token)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == [
        *("the sessions' database is away", "the sessions' database is back"),
    ]
    assert not any(token.id in line for line in lines)
