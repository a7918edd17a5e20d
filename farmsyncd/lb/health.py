"""Active checks of the nodes: a TCP connection, or an HTTP request with an answer that is expected.

Each node is checked by itself, at intervals with jitter, so that checks of a large farm, and of many balancers, do not
come all at once. What the checks mean is :mod:`farmsyncd.core.health`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from farmsyncd.lb.config import NodeAddress
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.endpoints import Way

JITTER = 0.1
"""A check comes so much of its interval earlier or later."""
_TICK_S = 0.25


class NotWell(Exception):
    """A check has found what it does not like, in words."""


class Probe(Protocol):
    """One way to check a node: fires when it is well, fails when it is not; may be cancelled."""

    def __call__(self, address: NodeAddress) -> Deferred[Any]:
        """Begin."""


class _SilentFactory(Factory):
    noisy = False
    protocol = Connection


class _Body(Connection):
    """The body of an answer, which nobody wants."""

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """Hang up."""
        self.transport.loseConnection()  # type: ignore[union-attr]


@attrs.frozen
class TcpProbe:
    """A node is well when it takes a connection."""

    way: Way

    def __call__(self, address: NodeAddress) -> Deferred[Any]:
        """Connect, and hang up."""
        connected: Deferred[Any] = self.way.to(address).connect(_SilentFactory())
        return connected.addCallback(lambda connection: connection.transport.loseConnection())


@implementer(IAgentEndpointFactory)
@attrs.frozen
class _Always:
    """Leads to one node whatever the URL says."""

    way: Way
    address: NodeAddress

    def endpointForURI(self, uri: object) -> Any:  # noqa: ARG002, N802 - IAgentEndpointFactory
        """Where to connect to."""
        return self.way.to(self.address)


@attrs.frozen
class HttpProbe:
    """A node is well when it answers a request for ``path`` with one of the codes in ``status``."""

    reactor: Any
    way: Way
    path: str
    status: frozenset[int]

    def __call__(self, address: NodeAddress) -> Deferred[Any]:
        """Ask, and look at the first line of the answer."""
        factory = _Always(self.way, address)
        client = HTTPClient(Agent.usingEndpointFactory(self.reactor, factory))
        host = "localhost" if address.path else str(address)
        asked: Deferred[Any] = client.get(
            f"http://{host}{self.path}",
            headers=Headers({"user-agent": ["farmsync-lb"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        return asked.addCallback(self._judge)

    def _judge(self, answer: Any) -> None:
        answer.deliverBody(_Body())
        if answer.code not in self.status:
            raise NotWell(f"it answered {answer.code} to GET {self.path}")


class Checks(Service):
    """Checks all nodes of the farm for as long as it runs, and tells ``dispatcher``."""

    _log = Logger()

    def __init__(
        self,
        dispatcher: Dispatcher,
        probe: Probe,
        interval_ns: int,
        timeout_s: float,
        now_ns: Callable[[], int],
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._probe = probe
        self._interval_ns = interval_ns
        self._timeout_s = timeout_s
        self._tick_s = min(_TICK_S, interval_ns / 4e9)
        self._now_ns = now_ns
        self._clock = clock
        self._random = random
        self._due_ns: dict[str, int] = {}
        self._running: dict[str, Deferred[Any]] = {}
        self._alarm: IDelayedCall | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._tick()

    def stopService(self) -> None:  # noqa: N802 - IService
        """End, those checks too that are under way."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for check in list(self._running.values()):
            check.cancel()

    def _tick(self) -> None:
        self._alarm = self._clock.callLater(self._tick_s, self._tick)
        now_ns = self._now_ns()
        nodes = self._dispatcher.farm.nodes
        self._due_ns = {
            name: self._due_ns.get(name, now_ns + int(self._interval_ns * self._random())) for name in nodes
        }
        for name, due_ns in list(self._due_ns.items()):
            if now_ns >= due_ns and name not in self._running:
                jitter = 1.0 + JITTER * (2.0 * self._random() - 1.0)
                self._due_ns[name] = now_ns + int(self._interval_ns * jitter)
                self._check(name, nodes[name].address)

    def _check(self, name: str, address: NodeAddress) -> None:
        check: Deferred[Any] = defer.maybeDeferred(self._probe, address)
        self._running[name] = check
        check.addTimeout(self._timeout_s, self._clock)
        check.addCallbacks(self._succeeded, self._failed, callbackArgs=(name, address), errbackArgs=(name, address))
        check.addErrback(lambda failure: self._log.failure("a check of {node} went wrong", failure, node=name))

    def _succeeded(self, _result: object, name: str, address: NodeAddress) -> None:
        self._ended(name, address, True, "")

    def _failed(self, failure: Failure, name: str, address: NodeAddress) -> None:
        self._ended(name, address, False, self._reason(failure))

    def _ended(self, name: str, address: NodeAddress, good: bool, reason: str) -> None:
        del self._running[name]
        node = self._dispatcher.farm.nodes.get(name)
        if self.running and node is not None and node.address == address:
            self._dispatcher.checked(name, good, reason)

    def _reason(self, failure: Failure) -> str:
        """Why a check failed, in words; anything may come from a node, so nothing is unexpected."""
        cause = failure.value
        if isinstance(cause, NotWell):
            return str(cause)
        reasons = getattr(cause, "reasons", None)  # what the HTTP client wraps
        if reasons:
            return self._reason(reasons[0])
        if isinstance(cause, (defer.TimeoutError, error.TimeoutError, defer.CancelledError)):
            return f"a check had no answer within {self._timeout_s:g} s"
        if isinstance(cause, error.ConnectionRefusedError):
            return "a check was refused"
        return f"a check failed: {failure.getErrorMessage() or type(cause).__name__}"
