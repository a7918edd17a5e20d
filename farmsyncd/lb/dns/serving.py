"""A DNS server's port: one number, over UDP and over TCP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, execute, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.lb.dns.zone import TCP_MOST, Zone
from farmsyncd.lb.relaying import binding

CLIENTS = 200
"""So many may be connected by TCP; of more, none is heard."""
IDLE_S = 10.0
LAST_S = 5.0
"""So long may a client's last question be under way when nobody listens any more."""
LONGEST_QUESTION = 4096
_TRIES = 20
_BACKLOG = 50


class OverUdp(DatagramProtocol):
    """Answers each datagram with one."""

    _log = Logger()
    noisy = False

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: N802 - DatagramProtocol
        """A question, perhaps."""
        try:
            answer = self._zone.answer(datagram, None)
            if answer is not None:
                self.transport.write(answer, addr)  # type: ignore[union-attr]
        except OSError:
            return  # nobody can be reached there, or the network is full: it will be asked again
        except Exception:
            self._log.failure("a question over UDP was not answered, for a reason that lies in the balancer")


class OverTcp(Int16StringReceiver):
    """Answers each message with one. While its answers are not taken, no more questions are.

    ``clients`` are those who are connected; ``gone`` is called when one is no more.
    """

    _log = Logger()
    MAX_LENGTH = LONGEST_QUESTION

    def __init__(
        self, zone: Zone, clock: IReactorTime, clients: set[OverTcp], gone: Callable[[], None] = lambda: None
    ) -> None:
        self._zone = zone
        self._clock = clock
        self._clients = clients
        self._gone = gone
        self._last = False
        self._idle: IDelayedCall | None = None

    def connectionMade(self) -> None:  # noqa: N802 - Protocol
        """Somebody connected."""
        if len(self._clients) >= CLIENTS:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self._clients.add(self)
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self._idle = self._clock.callLater(IDLE_S, self.transport.abortConnection)  # type: ignore[union-attr]

    def stringReceived(self, string: bytes) -> None:  # noqa: N802 - Int16StringReceiver
        """A question, perhaps."""
        try:
            answer = self._zone.answer(string, TCP_MOST)
        except Exception:
            self._log.failure("a question over TCP was not answered, for a reason that lies in the balancer")
            answer = None
        if answer is None:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self.sendString(answer)  # type: ignore[no-untyped-call]
        if self._last:
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif self._idle is not None:
            self._idle.reset(IDLE_S)

    def finish(self) -> None:
        """Answer one question more, which may be under way, and hang up; or when there is none after a while."""
        self._last = True
        if self._idle is not None and self._idle.active():
            self._idle.reset(LAST_S)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: ARG002, B008, N802 - Protocol
        """It is over."""
        self._clients.discard(self)
        self._gone()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()


class _TcpFactory(Factory):
    noisy = False

    def __init__(self, zone: Zone, clock: IReactorTime) -> None:
        self._zone = zone
        self._clock = clock
        self.clients: set[OverTcp] = set()
        self._finished: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> OverTcp:  # noqa: ARG002, N802 - Factory
        """For one client."""
        return OverTcp(self._zone, self._clock, self.clients, self._gone)

    def finish(self) -> Deferred[None]:
        """Have all clients finish; fires when they are gone."""
        finished = self._finished = Deferred()
        for client in list(self.clients):
            client.finish()
        self._gone()
        return finished

    def _gone(self) -> None:
        finished = self._finished
        if finished is not None and not self.clients:
            self._finished = None
            finished.callback(None)


def both_halves(endpoint: str) -> list[socket.socket]:
    """Sockets for TCP, which listens, and for UDP, at the place that ``endpoint`` (``tcp:...``, ``tcp6:...``) names.

    Raises OSError.
    """
    for left in reversed(range(_TRIES)):
        tcp = binding.bind(endpoint)
        udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
        try:
            if tcp.family == socket.AF_INET6:
                only = tcp.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            udp.bind(tcp.getsockname())
            tcp.listen(_BACKLOG)
        except OSError:  # of a port chosen at random, the other half may be taken
            tcp.close()
            udp.close()
            if not left:
                raise
        else:
            tcp.setblocking(False)
            udp.setblocking(False)
            return [tcp, udp]
    raise AssertionError("unreachable")


@implementer(IStreamServerEndpoint)
class DnsEndpoint:
    """Listens for questions at ``described``, over TCP, and over UDP on the same port.

    The sockets are held until :meth:`release`; see :class:`farmsyncd.lb.processes.held.Held`.
    """

    def __init__(self, described: str, zone: Zone, reactor: Any) -> None:
        self.described = described
        self.held: list[socket.socket] = []
        self._zone = zone
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: ARG002, N803 - interface
        """Start; the factory is not used."""
        return execute(self._listen)

    def release(self, *, passed_on: bool) -> None:  # noqa: ARG002 - a port leaves nothing behind
        """Hold the sockets no more."""
        for one in self.held:
            one.close()
        self.held = []

    def _listen(self) -> IListeningPort:
        if not self.held:
            self.held = both_halves(self.described)
        tcp, udp = self.held
        factory = _TcpFactory(self._zone, self._reactor)
        return _Port(
            self._reactor.adoptStreamPort(tcp.fileno(), tcp.family, factory),
            self._reactor.adoptDatagramPort(udp.fileno(), udp.family, OverUdp(self._zone), LONGEST_QUESTION),
            factory,
        )


@implementer(IListeningPort)
class _Port:
    """Both halves."""

    def __init__(self, tcp: Any, udp: Any, factory: _TcpFactory) -> None:
        self._tcp = tcp
        self._udp = udp
        self._factory = factory

    def startListening(self) -> None:  # noqa: N802 - IListeningPort
        """It does."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802 - IListeningPort
        """Take nobody in any more; fires when those who are connected have had their answers."""
        halves = [maybeDeferred(half.stopListening) for half in (self._tcp, self._udp)]
        return DeferredList([*halves, self._factory.finish()]).addCallback(lambda _: None)

    def getHost(self) -> IAddress:  # noqa: N802 - IListeningPort
        """Where it listens."""
        host: IAddress = self._tcp.getHost()
        return host
