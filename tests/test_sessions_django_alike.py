"""Whatever is done with them, farmsync's sessions answer as those in Django's own database do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import attrs
import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.sessions import Sessions, SessionSettings
from tests.django_site import in_a_loop
from tests.sessions_memory import MemoryDatabase, MemoryStore

KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([None, 0, 1, "", "text", [], [1, "x"], {"k": [1]}, 1.5, True])


@attrs.frozen
class Step:
    """One call, in words that the report of a failure shows."""

    name: str
    arguments: tuple[Any, ...] = ()


def steps(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(name), st.tuples(*arguments))


STEPS = st.one_of(
    steps("__setitem__", KEYS, VALUES),
    steps("__getitem__", KEYS),
    steps("__delitem__", KEYS),
    steps("__contains__", KEYS),
    steps("get", KEYS, VALUES),
    steps("pop", KEYS),
    steps("pop", KEYS, VALUES),
    steps("setdefault", KEYS, VALUES),
    steps("update", st.dictionaries(KEYS, VALUES, max_size=2)),
    steps("has_key", KEYS),
    *(steps(name) for name in ("clear", "save", "create", "cycle_key", "flush", "delete", "load", "is_empty")),
    *(steps(name) for name in ("keys", "items", "set_test_cookie", "test_cookie_worked", "get_expiry_age")),
    steps("set_expiry", st.sampled_from([None, 0, 60, 3600])),
    steps("get_expire_at_browser_close"),
    steps("say modified", st.booleans()),
    steps("the next request"),
    steps("another request ends it"),
)


class Client:
    """One request after the other, each with the key that the last one ended with."""

    def __init__(self, kind: Callable[[str | None], SessionBase], asynchronous: bool) -> None:
        self._kind = kind
        self._asynchronous = asynchronous
        self._session = kind(None)

    async def do(self, step: Step) -> tuple[object, ...]:
        """What the step answers, and what can be seen after it."""
        try:
            answer = await self._answer(step)
        except Exception as error:
            answer = type(error).__name__
        session = self._session
        return answer, session.accessed, session.modified, session.session_key is None, session.is_empty()

    async def _answer(self, step: Step) -> object:
        key = self._session.session_key
        match step.name:
            case "the next request":
                self._session = self._kind(key)
                return key is not None and await self._call(self._session, "exists", key)
            case "another request ends it":
                return await self._call(self._kind(key), "delete")
            case "say modified":
                self._session.modified = step.arguments[0]
                return None
        answer = await self._call(self._session, step.name, *step.arguments)
        return sorted(answer, key=repr) if step.name in {"keys", "items"} else answer

    async def _call(self, session: SessionBase, name: str, *arguments: Any) -> Any:
        if self._asynchronous:
            coroutine = getattr(session, {"__setitem__": "aset"}.get(name, f"a{name}"), None)
            if coroutine is not None:
                return await coroutine(*arguments)
            if name != "is_empty":
                await session.ahas_key("a")  # Django's own would ask its database in the event loop
        return getattr(session, name)(*arguments)


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.fixture(scope="module", autouse=True)
def _tables() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    yield
    connection.close()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["functions", "coroutines"])
def test_farmsyncs_sessions_answer_as_djangos_do(asynchronous: bool) -> None:
    from django.contrib.sessions.backends.db import SessionStore as Djangos

    from farmsyncd.sessions.django import SessionStore as Ours

    async def play(script: list[Step]) -> None:
        ours, djangos = Client(Ours, asynchronous), Client(Djangos, asynchronous)
        for step in script:
            answers = await ours.do(step), await djangos.do(step)
            if step.name == "cycle_key" and answers[0][0] == "UpdateError":
                return  # Django would bring back what has ended, under another key
            assert (step, answers[0]) == (step, answers[1])

    @settings(max_examples=150 if asynchronous else 600)
    @given(st.lists(STEPS, max_size=14))
    def compare(script: list[Step]) -> None:
        database = MemoryDatabase(now_us=int(timezone.now().timestamp() * 1_000_000))
        sessions = Sessions(MemoryStore(database), SessionSettings(absolute_s=1e10, sweep_every_s=0))
        with override_settings(FARMSYNC_SESSIONS=sessions):
            if asynchronous:
                in_a_loop(lambda: play(script))
            else:
                at_once(play(script))
        sessions.close()

    compare()
