"""The session that an application holds: a dict, whose changes are found wherever in it they are made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.session.faults import NotStorable, SessionClosed, SessionConflict, SessionGone, SessionTooLarge
from farmsyncd.sessions.session import Session
from farmsyncd.sessions.settings import SessionSettings
from tests.session_farm import Farm, Node, foreign, known

STATE: dict[str, Any] = {
    "user": "Zoë",
    "cart": [{"article": 1, "count": 2}],
    "seen": {3, 1, 2},
    "pair": (1, [2]),
    "nested": {"a": {"b": [1]}},
    "since": datetime(2026, 11, 22, tzinfo=UTC),
    "total": Decimal("9.90"),
}


@pytest.fixture
def node() -> Node:
    return Farm().node()


def test_it_behaves_as_a_dict(node: Node) -> None:
    session = node.open(None)
    session["a"] = 1
    session.update(b=2, c=3)
    assert (dict(session), len(session), list(session)) == ({"a": 1, "b": 2, "c": 3}, 3, ["a", "b", "c"])
    assert ("a" in session, "z" in session, session.get("z"), session.get("z", 9)) == (True, False, None, 9)
    assert (session.pop("a"), session.pop("a", None), session.setdefault("d", [])) == (1, None, [])
    assert session == {"b": 2, "c": 3, "d": []}
    del session["b"]
    with pytest.raises(KeyError):
        session["b"]
    with pytest.raises(KeyError):
        del session["b"]
    session.clear()
    assert (dict(session), bool(session)) == ({}, False)


def test_what_is_read_is_what_was_stored_in_value_and_type(node: Node) -> None:
    shown = node.shows(node.begin(**STATE))
    assert shown == STATE
    assert {key: type(value) for key, value in shown.items()} == {key: type(value) for key, value in STATE.items()}


def test_each_request_has_objects_of_its_own(node: Node) -> None:
    token = node.begin(cart=[1])
    one, other = node.open(token), node.open(token)
    one["cart"].append(2)
    assert (one["cart"], other["cart"], one["cart"] is one["cart"]) == ([1, 2], [1], True)


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["cart"].append({"article": 2}),
        lambda session: session["cart"][0].update(count=3),
        lambda session: session["seen"].add(9),
        lambda session: session["pair"][1].append(3),
        lambda session: session["nested"]["a"]["b"].pop(),
        lambda session: session.get("nested").clear(),
        lambda session: dict(session.items())["cart"].clear(),
        lambda session: session.setdefault("cart", []).append(5),
        lambda session: session.update(user="Bob"),
        lambda session: session.pop("user"),
        lambda session: session.update(fresh=None),
        lambda session: session.clear(),
        lambda session: session.update(total=Decimal("9.91")),
    ],
)
def test_a_change_is_found_wherever_it_is_made(node: Node, change: Callable[[Session], object]) -> None:
    token = node.begin(**STATE)
    session = node.open(token)
    change(session)
    expected = dict(session)
    assert session.modified
    session.commit()
    assert (session.version, session.modified) == (2, False)
    assert node.shows(token) == expected != STATE


@pytest.mark.parametrize(
    "read",
    [
        dict,
        lambda session: session["cart"][0]["count"],
        lambda session: session.update(user=session["user"]),
        lambda session: session.update(nested=session["nested"]),
        lambda session: session.update(user=session.pop("user")),
        lambda session: (session["seen"].add(7), session["seen"].discard(7)),
        lambda session: session.pop("nothing", None),
    ],
)
def test_what_is_as_before_is_no_change(node: Node, read: Callable[[Session], object]) -> None:
    token = node.begin(**STATE)
    node.calls()
    session = node.open(token)
    read(session)
    assert not session.modified
    session.commit()
    assert (session.version, node.calls()) == (1, {})


def test_it_says_what_it_is(node: Node) -> None:
    new = node.open(None)
    assert (new.is_new, new.version, new.digest, new.token, new.accessed, new.modified) == (
        *(True, 0, None, None, False, False),
    )
    with pytest.raises(ValueError, match="no id yet"):
        _ = new.id
    new["a"] = 1
    assert (new.is_new, new.accessed, new.modified) == (True, True, True)
    new.commit()
    token = known(new)
    assert (new.is_new, new.version, new.digest, new.id) == (False, 1, token.digest.hex(), token.id)


@pytest.mark.parametrize(
    "look",
    [
        lambda one: one.get("a"),
        lambda one: "a" in one,
        list,
        len,
        lambda one: one.update(a=2),
        lambda one: one.rotate(),
    ],
)
def test_any_look_inside_is_an_access(node: Node, look: Callable[[Session], object]) -> None:
    session = node.open(node.begin(a=1))
    assert (session.version, session.accessed) == (1, False)
    look(session)
    assert session.accessed


def test_it_never_shows_its_id_or_its_values(node: Node) -> None:
    token = node.begin(secret="xyzzy")
    session = node.open(token)
    for text in (repr(session), str(session), f"{session}"):
        assert text == f"<Session {token.digest.hex()[:12]} version 1>"
    assert repr(node.open(None)) == "<Session new>"
    assert repr(node.exchange().session) == "<Session not used yet>"


def test_a_value_that_cannot_be_kept_is_refused_where_it_is_set(node: Node) -> None:
    session = node.open(None)
    with pytest.raises(NotStorable, match=r"cart\[1\]\.price: expected .* found object"):
        session["cart"] = [1, {"price": object()}]
    with pytest.raises(NotStorable, match="text as key"):
        session[3] = 1  # type: ignore[index]
    assert (dict(session), session.modified) == ({}, False)


def test_a_value_that_cannot_be_kept_any_more_is_refused_at_commit(node: Node) -> None:
    token = node.begin(cart=[1])
    session = node.open(token)
    session["cart"].append(object())
    session["other"] = 1
    with pytest.raises(NotStorable, match=r"cart\[1\]"):
        session.commit()
    assert node.shows(token) == {"cart": [1]}


def test_a_state_over_the_limit_is_refused_and_the_largest_keys_are_named() -> None:
    node = Farm().node(SessionSettings(limit_bytes=1000, sweep_every_s=0))
    token = node.begin(a=1)
    session = node.open(token)
    session.update(big="x" * 900, small="y" * 90, tiny=1)
    with pytest.raises(SessionTooLarge, match=r"'big' \(90\d\), 'small' \(9\d\)"):
        session.commit()
    assert node.shows(token) == {"a": 1}
    del session["big"]
    session.commit()
    assert node.shows(token) == {"a": 1, "small": "y" * 90, "tiny": 1}


def test_changes_after_the_response_began_are_refused_and_reading_goes_on(node: Node) -> None:
    session = node.open(node.begin(a=1, b=[]))
    session.close()
    changes: list[Callable[[], object]] = [
        lambda: session.update(a=2),
        lambda: session.pop("a"),
        session.clear,
        session.rotate,
        session.destroy,
        session.commit,
        session.reload,
        lambda: session.change(lambda _: None),
    ]
    for change in changes:
        with pytest.raises(SessionClosed):
            change()
    assert dict(session) == {"a": 1, "b": []}


def test_reload_drops_the_changes_and_reads_the_row(node: Node) -> None:
    token = node.begin(a=1, cart=[1])
    session = node.open(token)
    cart = session["cart"]
    cart.append(2)
    session.update(a=5, b=6)
    node.set(token, a=2)
    session.reload()
    assert (dict(session), session.version, session.modified) == ({"a": 2, "cart": [1]}, 2, False)
    cart.append(3)  # no longer the session's
    assert not session.modified


def test_reload_takes_back_a_destroy_that_was_not_committed(node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.destroy()
    session["b"] = 2
    session.reload()
    session.commit()
    assert (dict(session), session.token, node.shows(token)) == ({"a": 1}, token, {"a": 1})


def test_reload_of_a_session_that_has_ended_is_a_new_one(node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    ending = node.open(token)
    ending.destroy()
    ending.commit()
    session.reload()
    assert (dict(session), session.is_new) == ({}, True)
    session["a"] = 2
    session.commit()
    assert known(session).id != token.id


def test_reload_of_a_new_session_drops_its_changes(node: Node) -> None:
    session = node.open(None)
    session["a"] = 1
    session.reload()
    assert (dict(session), session.modified, node.calls()) == ({}, False, {})


def test_a_rotation_that_was_asked_for_outlives_a_reload(node: Node) -> None:
    token = node.begin(a=1)
    session = node.open(token)
    session.rotate()
    session.reload()
    session.commit()
    assert known(session).id != token.id


def test_after_a_failed_commit_it_still_shows_what_the_request_made_of_it(node: Node) -> None:
    token = node.begin(a=1, b=1)
    session = node.open(token)
    session.update(a=2, b=2)
    node.set(token, a=9)
    for _ in range(2):  # it stays a conflict until the application has looked
        with pytest.raises(SessionConflict) as caught:
            session.commit()
        assert (caught.value.key, dict(session), session.version) == ("a", {"a": 2, "b": 2}, 1)
    session.reload()
    session["b"] = 3
    session.commit()
    assert node.shows(token) == {"a": 9, "b": 3}


def test_after_a_commit_what_others_changed_is_shown(node: Node) -> None:
    token = node.begin(a=1, cart=[1], n=0)
    session = node.open(token)
    assert (session["a"], session["cart"]) == (1, [1])
    node.set(token, a=2, cart=[1, 2], fresh=True)
    session["n"] = 1
    session.commit()
    assert dict(session) == {"a": 2, "cart": [1, 2], "n": 1, "fresh": True}
    session["cart"].append(3)
    session.commit()
    assert node.shows(token)["cart"] == [1, 2, 3]


def test_a_change_in_an_object_that_another_requests_value_replaced_is_a_conflict_and_not_lost(node: Node) -> None:
    token = node.begin(cart=[1], n=0)
    session = node.open(token)
    held = session["cart"]
    node.set(token, cart=[1, 2])
    session["n"] = 1
    session.commit()
    session["n"] = 2
    session.commit()  # it did not change: no conflict
    held.append(3)
    with pytest.raises(SessionConflict, match="'cart'"):
        session.commit()
    session.reload()
    assert dict(session) == {"cart": [1, 2], "n": 2}


def test_several_commits_in_one_request_build_on_each_other(node: Node) -> None:
    session = node.open(None)
    cart: list[int] = []
    session["cart"] = cart
    for number in range(3):
        cart.append(number)
        session.commit()
    assert (session.version, session.own_writes, node.shows(known(session))) == (3, 3, {"cart": [0, 1, 2]})


def test_change_repeats_the_function_over_what_others_have_left(node: Node) -> None:
    token = node.begin(n=0)
    session = node.open(token)
    others = [5, 6]

    def add_one(session: Session) -> None:
        n = session["n"]
        if others:
            node.set(token, n=n + others.pop())
        session["n"] = n + 1

    session.change(add_one)
    assert (session["n"], node.shows(token)) == (12, {"n": 12})


def test_change_commits_first_what_was_changed_before(node: Node) -> None:
    token = node.begin(n=0)
    session = node.open(token)
    session["before"] = 1
    other = [1]

    def add_one(session: Session) -> None:
        n = session["n"]
        if other:
            node.set(token, n=n + other.pop())
        session["n"] = n + 1

    session.change(add_one)
    assert node.shows(token) == {"n": 2, "before": 1}


def test_change_gives_up_when_others_are_always_faster(node: Node) -> None:
    token = node.begin(n=0)

    def too_slow(session: Session) -> None:
        node.set(token, n=session["n"] + 1)
        session["n"] = -1

    with pytest.raises(SessionConflict):
        node.open(token).change(too_slow)
    assert node.shows(token)["n"] > 0


def test_change_does_not_begin_a_session_in_place_of_one_that_ended(node: Node) -> None:
    token = node.begin(n=0)

    def ends(session: Session) -> None:
        session["n"] = session["n"] + 1
        node.set(token, n=7)
        node.store.before = lambda name: node.store.database.rows.clear() if name in ("read", "revalidate") else None

    with pytest.raises(SessionGone):
        node.open(token).change(ends)
    assert node.store.database.rows == {}


def test_an_unknown_session_is_looked_up_when_it_is_first_used(node: Node) -> None:
    session = node.exchange(f"farmsync={foreign().spell()}").session
    assert (session.opened, session.modified, node.calls()) == (False, False, {})
    assert (session.is_new, session.opened, node.calls()) == (True, True, {"read": 1})


Keys = st.sampled_from(["a", "b", "c"])
Values = st.one_of(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2))
Doings = st.lists(
    st.one_of(
        st.tuples(st.just("set"), Keys, Values),
        st.tuples(st.just("delete"), Keys, st.none()),
        st.tuples(st.just("append"), Keys, st.integers(0, 2)),
        st.tuples(st.just("read"), Keys, st.none()),
        st.tuples(st.just("commit"), Keys, st.none()),
    ),
    max_size=20,
)


@given(st.dictionaries(Keys, Values), Doings)
def test_whatever_is_done_to_it_is_what_the_next_request_sees(
    state: dict[str, Any], doings: list[tuple[str, str, Any]]
) -> None:
    node = Farm().node()
    token = node.begin(always=1, **state)
    session = node.open(token)
    model: dict[str, Any] = {"always": 1} | {
        key: list(value) if isinstance(value, list) else value for key, value in state.items()
    }
    for what, key, value in doings:
        if what == "set":
            session[key] = value
            model[key] = list(value) if isinstance(value, list) else value
        elif what == "delete":
            assert session.pop(key, None) == model.pop(key, None)
        elif what == "append":
            if isinstance(model.get(key), list):
                session[key].append(value)
                model[key].append(value)
        elif what == "read":
            assert session.get(key) == model.get(key)
        else:
            session.commit()
        assert sorted(session) == sorted(model)
    session.commit()
    assert node.shows(token) == model
