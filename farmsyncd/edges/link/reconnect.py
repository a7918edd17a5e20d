"""A service that keeps a client's link up, for ever, without hammering at a server that is not well."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges.link.connection import Link

FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0
GROWTH = 1.6


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], Link]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Link:  # noqa: ARG002, N802 - IProtocolFactory
        return self._build()


class Reconnecting(Service):
    """Connects when started; again, after a growing and jittered wait, whenever there is no connection; never gives up.

    The wait shrinks again once a connection has outlived a heartbeat: a server that greets and then says BYE is not
    asked ten times a second.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        build: Callable[[], Link],
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self.link: Link | None = None
        self._endpoint = endpoint
        self._factory = _LinkFactory(build)
        self._clock = clock
        self._random = random
        self._wait = FIRST_WAIT
        self._attempt: Deferred[None] | None = None
        self._waiting: IDelayedCall | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin to connect."""
        super().startService()  # type: ignore[no-untyped-call]
        self._connect()

    def stopService(self) -> Deferred[object]:  # noqa: N802 - IService
        """Connect no more, say BYE on the connection there is; fires when it is gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self.link is None:
            return succeed(None)
        gone = self.link.when_lost()
        self.link.close("this side is stopping")
        return gone.addCallback(lambda _reason: None)

    def _connect(self) -> None:
        self._waiting = None
        attempt = self._endpoint.connect(self._factory)
        self._attempt = attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: object) -> None:
        self._attempt = None
        assert isinstance(protocol, Link)
        self.link = protocol
        protocol.when_lost().addCallback(self._disconnected)
        if not self.running:
            protocol.close("this side is stopping")

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if not failure.check(CancelledError) and self.running and self._wait == FIRST_WAIT:
            self._log.warn("cannot connect: {reason}; trying on", reason=failure.getErrorMessage())
        self._again()

    def _disconnected(self, reason: str) -> None:  # noqa: ARG002 - the link's session tells of it
        if self.link is not None and self.link.settled:
            self._wait = FIRST_WAIT
        self.link = None
        self._again()

    def _again(self) -> None:
        if not self.running:
            return
        self._waiting = self._clock.callLater(self._wait * (0.5 + self._random() / 2), self._connect)
        self._wait = min(LONGEST_WAIT, self._wait * GROWTH)


def reconnecting(
    endpoint: IStreamClientEndpoint, build: Callable[[], Link], clock: IReactorTime, random: Callable[[], float]
) -> Reconnecting:
    """A service that keeps a link up: ``build`` makes a new one for each connection.

    The wait between two attempts grows from 0.1 s to 10 s, jittered by ``random`` (uniform in [0, 1), as
    ``random.random`` is).
    """
    return Reconnecting(endpoint, build, clock, random)
