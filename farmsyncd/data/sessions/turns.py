"""One request after the other: what a peer asks for is answered in the order in which it was asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.refusal import Refused
from farmsyncd.core.wire import Limits
from farmsyncd.edges.link import Link
from farmsyncd.edges.link.outbox import PourEnded
from farmsyncd.errors import BadInput, LocalError, PeerError, Unavailable

Work = Callable[[], Coroutine[Deferred[Any], Any, None]]

MOST_WAITING = 10_000
MOST_WAITING_BYTES = Limits().total


class Turns:
    """Runs a link's requests in turn.

    What a peer asks for faster than it takes the answers waits, too: few answers are ever kept for it.
    A request that is refused is answered by NO, one that the peer spoiled (PeerError) ends the link, and any other
    failure is logged and answered by NO ``internal``.
    """

    _log = Logger()

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[tuple[str, int, Work]] = deque()
        self._waiting_bytes = 0  # of their netstrings
        self._running: Deferred[None] | None = None
        self._over = False

    def take(self, message: Message, work: Work) -> None:
        """Do ``work`` for ``message`` once all before it is done. Raises PeerError when far too much waits."""
        if self._over:
            return
        if len(self._waiting) >= MOST_WAITING:
            raise PeerError(f"expected a peer that waits for answers, and {MOST_WAITING} of its requests wait")
        size = sum(map(len, message.frame().payload))
        if self._waiting and self._waiting_bytes + size > MOST_WAITING_BYTES:
            raise PeerError(
                f"expected a peer that waits for answers, and {self._waiting_bytes} bytes of its requests wait"
            )
        self._waiting.append((message.VERB, size, work))
        self._waiting_bytes += size
        if self._running is None:
            self._next()

    def refuse(self, message: Message, whom: str) -> None:
        """Answer, in its turn, a message that is not for ``whom`` to send."""

        async def refuse() -> None:
            raise Refused("refused", f"{message.VERB} is not for {whom}")

        self.take(message, refuse)

    def end(self) -> None:
        """The link is gone: cancel what runs, forget what waits."""
        self._over = True
        self._waiting.clear()
        if self._running is not None:
            self._running.cancel()

    def _next(self) -> None:
        while self._waiting and self._running is None:
            if (taken := self._link.when_taken()) is not None:
                self._running = taken
                taken.addBoth(self._done)
                return
            verb, size, work = self._waiting.popleft()
            self._waiting_bytes -= size
            running = Deferred.fromCoroutine(self._answer(verb, work))
            if not running.called:
                self._running = running
                running.addBoth(self._done)

    def _done(self, _result: object) -> None:
        self._running = None
        self._next()

    async def _answer(self, verb: str, work: Work) -> None:
        try:
            await work()
        except (CancelledError, PourEnded):
            pass  # the link is gone, and with it whoever asked
        except PeerError as error:
            self._log.warn("{address}: {error}; closing", address=self._link.address, error=str(error))
            self._link.close(str(error))
        except Exception as error:
            code, why = refusal(error)
            if code == "internal":
                self._log.failure("{address}: {verb} failed", address=self._link.address, verb=verb)
            self._link.send(No(code, verb, why.encode()))


def refusal(error: Exception) -> tuple[str, str]:
    """The code and the text of NO for a failure."""
    match error:
        case Refused():
            return error.code, str(error)
        case BadInput():
            return "bad", str(error)
        case Unavailable():
            return "full", str(error)
        case LocalError():
            return "internal", str(error)
        case _:
            return "internal", "a fault of the data server; its log says more"
