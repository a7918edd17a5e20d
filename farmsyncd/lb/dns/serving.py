"""A DNS server's port: one number, over UDP and over TCP."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList, execute, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
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

CLIENTS = 200
"""So many may be connected by TCP; of more, none is heard."""
IDLE_S = 10.0
LONGEST_QUESTION = 4096
_TRIES = 20


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
    """Answers each message with one. While its answers are not taken, no more questions are."""

    _log = Logger()
    MAX_LENGTH = LONGEST_QUESTION

    def __init__(self, zone: Zone, clock: IReactorTime, clients: set[OverTcp]) -> None:
        self._zone = zone
        self._clock = clock
        self._clients = clients
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
        if self._idle is not None:
            self._idle.reset(IDLE_S)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: ARG002, B008, N802 - Protocol
        """It is over."""
        self._clients.discard(self)
        if self._idle is not None and self._idle.active():
            self._idle.cancel()


class _TcpFactory(Factory):
    noisy = False

    def __init__(self, zone: Zone, clock: IReactorTime) -> None:
        self._zone = zone
        self._clock = clock
        self.clients: set[OverTcp] = set()

    def buildProtocol(self, addr: IAddress | None) -> OverTcp:  # noqa: ARG002, N802 - Factory
        """For one client."""
        return OverTcp(self._zone, self._clock, self.clients)


class _Heard:
    """Has of a reactor what an endpoint asks for to listen by TCP, and remembers where."""

    def __init__(self) -> None:
        self.place: tuple[int, str] | None = None

    def listenTCP(  # noqa: N802 - IReactorTCP
        self,
        port: int,
        factory: object,  # noqa: ARG002 - as above
        backlog: int = 50,  # noqa: ARG002 - as above
        interface: str = "",
    ) -> None:
        """Remember."""
        self.place = port, interface


def place_of(endpoint: str) -> tuple[int, str]:
    """The port and the interface that ``endpoint`` (``tcp:...`` or ``tcp6:...``) names. Raises ValueError."""
    heard: Any = _Heard()
    if endpoint.startswith(("tcp:", "tcp6:")):
        serverFromString(heard, endpoint).listen(Factory())
    if heard.place is None:
        raise ValueError(f"expected a tcp endpoint, which stands for UDP too, found {endpoint!r}")
    place: tuple[int, str] = heard.place
    return place


@implementer(IStreamServerEndpoint)
class DnsEndpoint:
    """Listens for questions at ``endpoint``, over TCP, and over UDP on the same port."""

    def __init__(self, endpoint: str, zone: Zone, reactor: Any) -> None:
        self._place = place_of(endpoint)
        self._zone = zone
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: ARG002, N803 - interface
        """Bind and start; the factory is not used."""
        return execute(self._listen)

    def _listen(self) -> IListeningPort:
        port, interface = self._place
        for left in reversed(range(1 if port else _TRIES)):
            factory = _TcpFactory(self._zone, self._reactor)
            tcp = self._reactor.listenTCP(port, factory, interface=interface)
            try:
                udp = self._reactor.listenUDP(
                    tcp.getHost().port, OverUdp(self._zone), interface, maxPacketSize=LONGEST_QUESTION
                )
            except CannotListenError:  # of a port chosen at random, the other half may be taken
                tcp.stopListening()
                if not left:
                    raise
            else:
                return _Port(tcp, udp, factory.clients)
        raise AssertionError("unreachable")


@implementer(IListeningPort)
class _Port:
    """Both halves."""

    def __init__(self, tcp: Any, udp: Any, clients: set[OverTcp]) -> None:
        self._tcp = tcp
        self._udp = udp
        self._clients = clients

    def startListening(self) -> None:  # noqa: N802 - IListeningPort
        """It does."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802 - IListeningPort
        """Answer nobody any more."""
        stopped = DeferredList([maybeDeferred(half.stopListening) for half in (self._tcp, self._udp)])
        for client in list(self._clients):
            client.transport.abortConnection()  # type: ignore[union-attr]
        return stopped.addCallback(lambda _: None)

    def getHost(self) -> IAddress:  # noqa: N802 - IListeningPort
        """Where it listens."""
        host: IAddress = self._tcp.getHost()
        return host
