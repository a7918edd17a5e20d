"""What is done again and again, and goes on whatever happens to one of the times."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure


class Ticking(Service):
    """Does ``work`` every ``seconds`` by ``clock``, never twice at once. A failure is logged, the first of a row."""

    _log = Logger()

    def __init__(
        self, what: str, seconds: float, work: Callable[[], Coroutine[Deferred[Any], Any, object]], clock: IReactorTime
    ) -> None:
        self._what = what
        self._seconds = seconds
        self._work = work
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._failing = False

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin; the first time is after one interval."""
        super().startService()  # type: ignore[no-untyped-call]
        self._loop.start(self._seconds, now=False)

    def stopService(self) -> Deferred[None] | None:  # noqa: N802 - IService
        """End; fires when what is being done is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        if not self._loop.running:
            return None
        ended: Deferred[None] = Deferred()
        assert self._loop.deferred is not None
        self._loop.deferred.addBoth(lambda _: ended.callback(None))
        self._loop.stop()
        return ended

    def _tick(self) -> Deferred[object]:
        return Deferred.fromCoroutine(self._work()).addCallbacks(self._done, self._failed)

    def _done(self, _result: object) -> None:
        self._failing = False

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError) and not self._failing:
            self._failing = True
            self._log.failure("{what} failed; it is tried again", failure=failure, what=self._what)
