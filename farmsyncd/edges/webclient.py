"""What a daemon asks of web servers: each answer is taken piece by piece, and whoever gives up also hangs up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone, _HTTP11ClientFactory
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

_CONNECT_TIMEOUT = 30.0


class _Quiet(_HTTP11ClientFactory):
    noisy = False  # a connection is no change of state: it has no line in the log


class _Pool(HTTPConnectionPool):
    _factory = _Quiet


def web_client(reactor: Any) -> HTTPClient:
    """A client whose connections end with their answers. Ask with ``unbuffered=True``, then :func:`take`."""
    pool = _Pool(reactor, persistent=False)  # type: ignore[no-untyped-call]
    return HTTPClient(Agent(reactor, connectTimeout=_CONNECT_TIMEOUT, pool=pool))


def take(response: IResponse, piece: Callable[[bytes], object]) -> Deferred[None]:
    """Hand the answer's body to ``piece`` as it comes; fires at its end.

    Fails with what ``piece`` raises, or when the connection is lost first. That, and cancelling, hang up at once.
    """
    taker = _Taker(piece)
    response.deliverBody(taker)
    return taker.done


def dismiss(response: IResponse) -> None:
    """Hang up: nobody wants the answer's body, however long it is."""
    take(response, lambda _piece: None).addErrback(lambda _failure: None).cancel()


class _Taker(Protocol):
    def __init__(self, piece: Callable[[bytes], object]) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._hang_up())
        self._piece = piece
        self._over = False

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - IProtocol
        if self._over:
            return
        try:
            self._piece(data)
        except Exception:
            failure = Failure()
            self._hang_up()
            self.done.errback(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - IProtocol
        if self._over:
            return
        self._over = True
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(reason)

    def _hang_up(self) -> None:
        self._over = True
        if self.transport is not None:
            self.transport.loseConnection()


def explained(failure: Failure) -> str:
    """Why there is no answer, in words: what went wrong below is hidden in Twisted's errors."""
    reasons = getattr(failure.value, "reasons", None) or [failure]
    return "; ".join(reason.getErrorMessage().rstrip(".") or reason.type.__name__ for reason in reasons)
