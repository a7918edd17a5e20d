"""Django's sessions, kept by farmsync: what Django's documentation says of ``request.session``, method by method."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from farmsyncd.sessions import Sessions, SessionSettings
from farmsyncd.sessions.django import SessionStore
from tests import django_site
from tests.sessions_memory import MemoryDatabase, MemoryStore

UNKNOWN = "u" * 42 + "A"  # as long as an id, and never issued


@pytest.fixture
def database() -> MemoryDatabase:
    """The database of a farm's sessions; its clock agrees with Django's."""
    return MemoryDatabase(now_us=int(timezone.now().timestamp() * 1_000_000))


@pytest.fixture(autouse=True)
def _sessions(database: MemoryDatabase) -> Iterator[None]:
    sessions = Sessions(MemoryStore(database), SessionSettings(absolute_s=1e10, sweep_every_s=0))
    with override_settings(FARMSYNC_SESSIONS=sessions):
        yield
    sessions.close()


@pytest.fixture
def session() -> SessionStore:
    """A session that nobody has touched."""
    return SessionStore()


def saved(**values: object) -> SessionStore:
    """A session that was saved with these values."""
    session = SessionStore()
    session.update(values)
    session.save()
    return session


def again(session: SessionStore) -> SessionStore:
    """The same session as the next request has it."""
    return SessionStore(session.session_key)


def test_a_new_session_is_neither_modified_nor_accessed(session: SessionStore) -> None:
    assert (session.modified, session.accessed, session.session_key, session.is_empty()) == (False, False, None, True)


def test_reading_counts_as_access_and_not_as_a_change(session: SessionStore) -> None:
    assert session.get("cat") is None
    assert session.get("cat", "none") == "none"
    assert (session.accessed, session.modified) == (True, False)


def test_what_is_set_can_be_read_and_taken_out(session: SessionStore) -> None:
    session["cat"] = "dog"
    assert session.modified
    assert session["cat"] == "dog"
    assert session.pop("cat") == "dog"
    assert "cat" not in session


@pytest.mark.parametrize("name", ["get", "__getitem__", "__contains__", "has_key", "keys", "values", "items"])
def test_each_way_to_read_counts_as_access_alone(name: str) -> None:
    session = again(saved(x=1))
    answer = getattr(session, name)(*(() if name in {"keys", "values", "items"} else ("x",)))
    assert list(answer) == {"keys": ["x"], "values": [1], "items": [("x", 1)]}[name] if name.endswith("s") else answer
    assert (session.accessed, session.modified) == (True, False)


def test_pop_takes_a_default_and_raises_without_one(session: SessionStore) -> None:
    assert session.pop("some key", "does not exist") == "does not exist"
    assert session.pop("some key", default=None) is None
    assert (session.accessed, session.modified) == (True, False)
    with pytest.raises(KeyError):
        session.pop("some key")


def test_setdefault_changes_only_what_is_not_there(session: SessionStore) -> None:
    assert session.setdefault("foo", "bar") == "bar"
    assert session.modified
    session.modified = False
    assert session.setdefault("foo", "baz") == "bar"
    assert (session.accessed, session.modified) == (True, False)


def test_update_and_deletion_are_changes() -> None:
    session = SessionStore()
    session.update({"update key": 1})
    assert session.modified
    session = again(saved(x=1, y=2))
    del session["x"]
    assert session.modified
    session.save()
    assert list(again(session).items()) == [("y", 2)]
    with pytest.raises(KeyError):
        del session["x"]


def test_clear_empties_a_session_without_ending_it() -> None:
    session = again(saved(x=1))
    session.clear()
    assert (list(session.items()), session.accessed, session.modified) == ([], True, True)
    session.save()
    assert again(session).exists(session.session_key)
    assert list(again(session).keys()) == []


def test_saving_gives_a_key_and_keeps_the_values(session: SessionStore) -> None:
    session["a"] = "b"
    session.save()
    assert session.session_key
    assert session.exists(session.session_key)
    assert session["a"] == "b"
    assert again(session)["a"] == "b"


def test_an_empty_session_can_be_saved_and_created(session: SessionStore) -> None:
    session.save()
    assert session.exists(session.session_key)
    other = SessionStore()
    other.create()
    assert other.session_key not in {None, session.session_key}
    assert other.modified
    assert other.exists(other.session_key)


def test_delete_ends_the_session_of_a_key_or_ones_own() -> None:
    session, other = saved(x=1), saved(x=2)
    session.delete(other.session_key)
    assert not session.exists(other.session_key)
    session.delete()
    assert not session.exists(session.session_key)
    session.delete("12345678")
    session.delete(UNKNOWN)
    SessionStore().delete()


def test_flush_ends_the_session_and_what_follows_is_another_one() -> None:
    session = saved(foo="bar")
    before = session.session_key
    session.flush()
    assert not session.exists(before)
    assert (session.session_key, session.modified, session.accessed) == (None, True, True)
    assert dict(session.items()) == {}
    session["x"] = 1
    session.save()
    assert session.session_key != before
    assert dict(again(session).items()) == {"x": 1}


def test_cycle_key_gives_the_state_a_new_key_and_ends_the_old_one() -> None:
    session = saved(a="c", b="d")
    before = session.session_key
    session.cycle_key()
    assert not session.exists(before)
    assert session.session_key != before
    assert dict(session.items()) == {"a": "c", "b": "d"}
    assert dict(again(session).items()) == {"a": "c", "b": "d"}


def test_cycle_key_keeps_what_was_not_read_and_what_was_not_saved() -> None:
    session = again(saved(a="c"))
    assert not hasattr(session, "_session_cache")
    session.cycle_key()
    assert dict(session.items()) == {"a": "c"}
    session["b"] = "d"
    session.cycle_key()
    assert dict(again(session).items()) == {"a": "c", "b": "d"}


def test_cycle_key_of_a_session_that_was_never_saved_makes_a_key(session: SessionStore) -> None:
    session["a"] = 1
    session.cycle_key()
    assert dict(again(session).items()) == {"a": 1}


@pytest.mark.parametrize("key", ["1", "1234567", "", None])
def test_keys_that_are_too_short_are_none(key: str | None) -> None:
    session = SessionStore(key)
    assert session.session_key is None
    session.save()
    assert session.session_key != key
    assert session.get("cat") is None


def test_the_key_can_be_read_and_not_set(session: SessionStore) -> None:
    with pytest.raises(AttributeError):
        session.session_key = "12345678"  # type: ignore[misc]


@pytest.mark.parametrize("key", ["someunknownkey", UNKNOWN, UNKNOWN + ".7", "ключ" * 11, "../../etc/passwd"])
def test_an_unknown_key_is_never_taken_over(key: str, database: MemoryDatabase) -> None:
    session = SessionStore(key)
    assert session.load() == {}
    assert session.session_key is None
    assert not session.exists(session.session_key)
    assert database.rows == {}
    session["x"] = 1
    session.save()
    assert session.session_key not in {None, key, key.partition(".")[0]}


def test_saving_does_not_bring_back_a_session_that_was_ended_elsewhere(database: MemoryDatabase) -> None:
    one = saved(test_data="value1")
    two = again(one)
    assert two["test_data"] == "value1"
    two["test_data"] = "value2"
    one.delete()
    with pytest.raises(UpdateError):
        two.save()
    assert database.rows == {}
    with pytest.raises(UpdateError):
        one.save()
    assert database.rows == {}


def test_must_create_never_touches_a_session_that_is_there(database: MemoryDatabase) -> None:
    one = saved(x=1)
    two = SessionStore()
    two["x"] = 2
    two.save(must_create=True)
    assert two.session_key != one.session_key
    assert (again(one)["x"], again(two)["x"], len(database.rows)) == (1, 2, 2)


def test_values_keep_their_types_and_changes_inside_them_are_noticed() -> None:
    when = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    session = again(saved(cart={"lines": [{"sku": "a", "count": 1}]}, when=when, seen={1, 2}))
    assert (session["when"], session["seen"]) == (when, {1, 2})
    session["cart"]["lines"][0]["count"] = 2
    assert session.modified
    session.save()
    assert again(session)["cart"] == {"lines": [{"sku": "a", "count": 2}]}


def test_what_asks_for_nothing_keeps_later_changes_noticed() -> None:
    session = again(saved(cart=[]))
    session.pop("nothing", None)
    assert not session.modified
    session["cart"].append("pear")
    assert session.modified


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_change_is_made_again_when_another_request_came_first(asynchronous: bool, database: MemoryDatabase) -> None:
    session = SessionStore()
    calls: list[int] = []

    def add(session: SessionStore) -> None:
        calls.append(session.get("n", 0))
        session["n"] = session.get("n", 0) + 1
        if len(calls) == 2:
            other = again(session)
            other["n"] += 10
            other.save()

    for _ in range(2):
        if asynchronous:
            django_site.in_a_loop(lambda: session.achange(add))
        else:
            session.change(add)
    assert calls == [0, 1, 11]
    assert dict(again(session).items()) == {"n": 12}
    (row,) = database.rows.values()
    assert row.idle_expires_us - row.changed_us == 1_209_600 * 1_000_000


def test_a_test_cookie_works_from_one_request_to_the_next(session: SessionStore) -> None:
    assert not session.test_cookie_worked()
    session.set_test_cookie()
    session.save()
    following = again(session)
    assert following.test_cookie_worked()
    following.delete_test_cookie()
    assert not following.test_cookie_worked()


# Expiry


def test_without_a_choice_a_session_lives_as_long_as_the_settings_say(session: SessionStore) -> None:
    assert session.get_expiry_age() == 1_209_600
    session.set_expiry(0)
    assert session.get_expiry_age() == 1_209_600
    with override_settings(SESSION_COOKIE_AGE=600):
        assert session.get_expiry_age() == 600


@pytest.mark.parametrize("choice", ["seconds", "timedelta", "datetime"])
def test_expiry_can_be_chosen_in_seconds_as_a_span_and_as_an_instant(choice: str, session: SessionStore) -> None:
    now = timezone.now()
    end = now + timedelta(seconds=10)
    choices: dict[str, Any] = {"seconds": 10, "timedelta": timedelta(seconds=10), "datetime": end}
    session.set_expiry(choices[choice])
    assert 8 <= session.get_expiry_age(modification=now) <= 11
    assert abs(session.get_expiry_date(modification=now) - end) < timedelta(seconds=60)
    assert session.get_expiry_age(modification=now, expiry=now + timedelta(seconds=77)) == 77


def test_a_choice_of_none_goes_back_to_the_settings(session: SessionStore) -> None:
    session.set_expiry(None)
    session.set_expiry(10)
    session.set_expiry(None)
    assert session.get_expiry_age() == 1_209_600


def test_the_end_with_the_browser_is_chosen_or_set(session: SessionStore) -> None:
    for by_setting in (False, True):
        with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=by_setting):
            answers = []
            for choice in (10, 0, None):
                session.set_expiry(choice)
                answers.append(session.get_expire_at_browser_close())
            assert answers == [False, True, by_setting]


@pytest.mark.parametrize(
    "choice", [3600, timedelta(hours=1), "datetime", None], ids=["seconds", "timedelta", "datetime", "none"]
)
def test_the_row_ends_when_the_session_does(choice: int | timedelta | str | None, database: MemoryDatabase) -> None:
    session = saved(foo="bar")
    session.set_expiry(timezone.now() + timedelta(hours=1) if isinstance(choice, str) else choice)
    with override_settings(SESSION_COOKIE_AGE=3600):
        session.save()
    database.pass_s(3500)
    assert again(session)["foo"] == "bar"
    database.pass_s(110)
    assert not session.exists(session.session_key)
    assert "foo" not in SessionStore(session.session_key)
    with pytest.raises(UpdateError):
        session.save()


def test_a_session_may_live_longer_than_farmsync_would_let_it_by_default(database: MemoryDatabase) -> None:
    session = saved(foo="bar")
    session.set_expiry(timedelta(days=400))
    session.save()
    database.pass_s(399 * 86_400)
    assert again(session)["foo"] == "bar"


@pytest.mark.parametrize("past", [-10, timedelta(seconds=-10), timedelta(0)])
def test_a_session_whose_end_is_past_has_ended_at_once(past: int | timedelta) -> None:
    fresh = SessionStore()
    fresh["foo"] = "bar"
    fresh.set_expiry(past)
    fresh.save()
    assert "foo" not in SessionStore(fresh.session_key)
    lived = again(saved(foo="bar"))
    lived.set_expiry(past)
    lived.save()
    assert "foo" not in SessionStore(lived.session_key)


def test_reading_does_not_prolong_a_session_and_saving_does(database: MemoryDatabase) -> None:
    with override_settings(SESSION_COOKIE_AGE=100):
        session = saved(foo="bar")
        for _ in range(3):
            database.pass_s(30)
            following = again(session)
            assert following["foo"] == "bar"
            following.save()
        for _ in range(2):
            database.pass_s(45)
            assert again(session)["foo"] == "bar"
        database.pass_s(45)
        assert "foo" not in again(session)


def test_expired_sessions_are_removed_and_others_stay(database: MemoryDatabase) -> None:
    kept, gone = saved(x=1), [saved(x=2) for _ in range(3)]
    for session in gone:
        session.set_expiry(60)
        session.save()
    database.pass_s(61)
    assert len(database.rows) == 4
    SessionStore.clear_expired()
    assert len(database.rows) == 1
    assert again(kept)["x"] == 1


def test_the_command_clearsessions_removes_what_has_expired(database: MemoryDatabase) -> None:
    session = saved(x=1)
    saved(x=2)
    session.set_expiry(60)
    session.save()
    database.pass_s(61)
    call_command("clearsessions")
    assert len(database.rows) == 1


# Encoding for others, as SessionBase documents it


def test_encode_and_decode_are_there_for_those_who_use_them(session: SessionStore) -> None:
    data = {"a test key": "a test value"}
    assert session.decode(session.encode(data)) == data
    assert session.decode("flaskdj:alkdjf") == {}


# The same for coroutines


def test_the_documented_coroutines_do_what_their_namesakes_do(database: MemoryDatabase) -> None:
    async def use() -> None:
        session = SessionStore()
        await session.aset("a", 1)
        await session.aupdate({"b": 2})
        assert await session.asetdefault("c", 3) == 3
        assert (await session.aget("a"), await session.aget("z", "none")) == (1, "none")
        assert await session.ahas_key("b")
        assert (list(await session.akeys()), list(await session.avalues())) == (["a", "b", "c"], [1, 2, 3])
        assert dict(await session.aitems()) == {"a": 1, "b": 2, "c": 3}
        assert (await session.apop("c"), await session.apop("c", None)) == (3, None)
        await session.aset_test_cookie()
        assert await session.atest_cookie_worked()
        await session.adelete_test_cookie()
        await session.asave()
        before = session.session_key
        assert await session.aexists(before)
        assert await SessionStore(before).aload() == {"a": 1, "b": 2}
        following = SessionStore(before)
        await following.acycle_key()
        assert not await following.aexists(before)
        assert await following.aget("a") == 1
        await following.aset_expiry(60)
        assert await following.aget_expiry_age() == 60
        assert await following.aget_expiry_date() > timezone.now()
        assert not await following.aget_expire_at_browser_close()
        await following.asave()
        other = SessionStore()
        await other.acreate()
        await other.adelete()
        assert not await other.aexists(other.session_key)
        await following.aflush()
        assert following.session_key is None
        await SessionStore.aclear_expired()

    django_site.in_a_loop(use)
    assert database.rows == {}


def test_coroutines_do_not_bring_back_a_session_that_has_ended() -> None:
    async def use() -> None:
        one = SessionStore()
        await one.aset("x", 1)
        await one.asave()
        two = SessionStore(one.session_key)
        await two.aset("x", 2)
        await one.adelete()
        with pytest.raises(UpdateError):
            await two.asave()

    django_site.in_a_loop(use)
