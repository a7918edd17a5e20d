"""Waiting for what will come true: polling with a generous limit, so that a slow machine passes too."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")
LIMIT = 30.0


class _Patience:
    """Asks until the answer is truthy; an AssertionError in the question counts as "not yet"."""

    def __init__(self, what: str, limit: float) -> None:
        self._what = what
        self._ends = time.monotonic() + limit
        self._limit = limit
        self.last: object = None
        self.doubt: AssertionError | None = None

    def check(self) -> None:
        if time.monotonic() > self._ends:
            told = f"last: {self.last!r}" if self.doubt is None else f"last: {self.doubt}"
            raise AssertionError(f"not within {self._limit} s: {self._what}; {told}") from self.doubt


def eventually(question: Callable[[], T | Literal[False] | None], timeout: float = LIMIT, what: str = "") -> T:
    """The first truthy answer of ``question``; blocks, so the reactor of this process stands still meanwhile."""
    patience = _Patience(what or _name(question), timeout)
    while True:
        try:
            answer = question()
            patience.last, patience.doubt = answer, None
            if answer:
                return answer
        except AssertionError as error:
            patience.doubt = error
        patience.check()
        time.sleep(0.02)


async def eventually_async(question: Callable[[], T | Awaitable[T]], timeout: float = LIMIT, what: str = "") -> T:
    """The first truthy answer of ``question``, which may be awaitable; the reactor runs meanwhile."""
    patience = _Patience(what or _name(question), timeout)
    while True:
        try:
            answer = question()
            if inspect.isawaitable(answer):
                answer = await answer
            patience.last, patience.doubt = answer, None
            if answer:
                return cast("T", answer)
        except AssertionError as error:
            patience.doubt = error
        patience.check()
        await turn(0.02)


def turn(seconds: float = 0.0) -> Deferred[None]:
    """Fires after the reactor has had a turn."""
    return deferLater(cast("IReactorTime", reactor), seconds, lambda: None)


def _name(question: Callable[..., object]) -> str:
    return getattr(question, "__qualname__", repr(question))
