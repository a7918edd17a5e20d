"""The Twisted protocol on either end of a connection.

A link's life::

    connected --HELLO--> greeted --close()/BYE--> closing --> lost
        |                                            ^
        +-- TIME, SCHEDULE, DATASETS from people ----+   (answered without a greeting)

The session hears ``greeted`` at most once, ``received`` for each message in between, and ``lost`` exactly once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from farmsyncd.core import wire
from farmsyncd.core.etiquette import Etiquette
from farmsyncd.core.messages.base import Message, Side
from farmsyncd.core.messages.greeting import Bye, Hello, Ping, Pong
from farmsyncd.core.strangers import http_answer
from farmsyncd.core.words import printable
from farmsyncd.edges.link.outbox import Extent, Outbox
from farmsyncd.edges.link.outlet import Outlet, outlet_for
from farmsyncd.edges.link.peername import peer_of
from farmsyncd.edges.link.pulse import Beat
from farmsyncd.edges.link.settings import LinkSettings, Session
from farmsyncd.edges.link.timers import Timers, fire
from farmsyncd.edges.link.valve import Valve
from farmsyncd.errors import PeerError

_PING = wire.encode(Ping(0).frame())


class _State(enum.Enum):
    NEW = "not connected yet"
    OPEN = "connected"
    CLOSING = "closing"
    LOST = "lost"


@implementer(IHalfCloseableProtocol)
class Link(Protocol):
    """One connection: parses, greets, keeps alive, bounds what waits, and closes in order.

    ``me`` is the HELLO of this side; a client without one asks only what needs no greeting. ``clock`` is the reactor.
    """

    _log = Logger()

    def __init__(
        self, session: Session, me: Hello | None, side: Side, clock: IReactorTime, settings: LinkSettings | None = None
    ) -> None:
        self.settings = settings if settings is not None else LinkSettings()
        self.address = "nowhere"
        self.arrived_ns = 0
        self.settled = False  # whether the connection has outlived a heartbeat after the greeting
        self._session = session
        self._me = me
        self._side = side
        self._etiquette = Etiquette(Side.SERVER if side is Side.CLIENT else Side.CLIENT, expected=me is not None)
        self._stamp: Callable[[], int] | None = getattr(session, "stamp", None)
        self._parser = wire.FrameParser(self.settings.stranger if side is Side.SERVER else self.settings.limits)
        self._outbox = Outbox(self._moved, self._emptied, self._torn)
        self._outlet: Outlet | None = None
        self._pulse = self.settings.pulse(1 if side is Side.CLIENT else 2)
        self._state = _State.NEW
        self._reason = ""
        self._half_closed = False
        self._valve = Valve()
        self._owed = 0  # answers that a person, or a script with netcat, still waits for
        self._ending = False  # nothing more is sent
        self._timers = Timers(clock)
        self._lost: list[Deferred[str]] = []
        self._taken: list[Deferred[None]] = []

    @property
    def peer(self) -> Hello | None:
        """The peer's HELLO, once it has come."""
        return self._etiquette.peer

    # What the session calls

    def send(self, *messages: Message) -> None:
        """Send messages, together. What a closing link is given is dropped: its peer has been told goodbye."""
        self._put(b"".join(wire.encode(message.frame()) for message in messages))
        self._answered(len(messages))

    def send_bytes(self, frames: bytes) -> None:
        """Send whole frames that are encoded already; together they count as one answer."""
        self._put(frames)
        self._answered(1)

    def send_now(self, build: Callable[[int], Message]) -> None:
        """Send the message that ``build`` makes of the session's stamp, read as late as possible.

        The bytes leave before this returns, unless something else still waits to be sent.
        """
        assert self._stamp is not None, "only a session with a stamp sends stamped messages"
        self.send(build(self._stamp()))

    def pour(self, source: Iterator[bytes | Extent]) -> Deferred[None]:
        """Send all that ``source`` yields, as fast as the peer takes it; one pour at a time.

        Each piece is whole frames: encoded bytes, or a range of a file that holds them (see :class:`Extent`).
        Messages that are sent meanwhile go between two pieces. Fires when the last byte has left; fails with
        PourEnded when the link ends first, and with the source's or its file's error when it cannot be read.
        """
        return self._outbox.pour(source)

    def pause(self) -> None:
        """Read no more from the peer; what was read already is still delivered."""
        self._valve.shut("the session is busy")

    def resume(self) -> None:
        """Read again."""
        self._valve.open("the session is busy")

    def close(self, reason: str) -> None:
        """Say BYE with ``reason``, give the peer the rest of what waits, then end; abort when that takes too long."""
        text = printable(reason)
        self._close(text, wire.encode(Bye(text.encode()).frame()))

    def abort(self, reason: str = "aborted here") -> None:
        """End at once; what waits is lost."""
        if self._state in {_State.OPEN, _State.CLOSING}:
            self._reason = self._reason or reason
            self._state = _State.CLOSING
            self._end_sending()
            self.transport.abortConnection()  # type: ignore[union-attr]

    def when_lost(self) -> Deferred[str]:
        """Fires with the reason once the connection is gone."""
        if self._state is _State.LOST:
            return succeed(self._reason)
        self._lost.append(Deferred())
        return self._lost[-1]

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer to take them."""
        return self._outbox.unsent

    def when_taken(self) -> Deferred[None] | None:
        """Fires when the peer has taken most of the much that waits for it, if the link lives; None if it is little."""
        if self.unsent <= self.settings.unsent_reading:
            return None
        self._taken.append(Deferred())
        return self._taken[-1]

    # What the transport calls

    def connectionMade(self) -> None:  # noqa: N802 - IProtocol
        """The connection stands: greet, and begin to listen for the heart."""
        transport: Any = self.transport
        self._state = _State.OPEN
        self.address = peer_of(transport)
        self._valve.attach(transport, self.settings.read_size)
        self._outlet = outlet_for(transport, self._outbox.pump, self._outlet_gone)
        self._outbox.attach(self._outlet)
        self._timers.start("heartbeat", self.settings.heartbeat, self._beat)
        if self._side is Side.SERVER or self._me is not None:
            self._timers.start("greeting", self.settings.greeting_timeout, self._ungreeted)
        if self._side is Side.CLIENT and self._me is not None:
            self.send(self._me)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - IProtocol
        """Deliver what the bytes say, or say goodbye to a peer that makes no sense."""
        if self._stamp is not None:
            self.arrived_ns = self._stamp()
        if self._state is not _State.OPEN:
            return
        self._pulse.heard()
        count = 0
        try:
            for frame in self._parser.feed(data):
                count += 1
                self._deliver(frame)
                if self._state is not _State.OPEN:
                    return
            self._valve.took(len(data), count)
        except PeerError as error:
            self._log.warn("{address}: {error}; closing", address=self.address, error=printable(str(error)))
            self.close(str(error))
        except Exception:
            self._log.failure("{address}: a fault of ours; closing this connection", address=self.address)
            self.close("a fault on this side; its log says more")

    def readConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """The peer sends no more, as netcat does at the end of its input: it gets what it asked for, then we end."""
        self._half_closed = True
        self._valve = Valve()  # there is nothing left to read
        if self._state is _State.CLOSING:
            if self._ending:
                self.transport.loseConnection()  # type: ignore[union-attr]
        elif self._side is Side.SERVER and (self.peer is None or self.peer.role == "operator"):
            self._timers.stop("greeting")
            self._timers.start("patience", self.settings.idle_timeout, self._impatient)
            self._answered(0)
        else:
            self._close("the peer ended the connection", b"")

    def writeConnectionLost(self) -> None:  # noqa: N802 - IHalfCloseableProtocol
        """Nothing more is sent from here, as this side decided itself."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - IProtocol
        """The connection is gone: tell the session why, once."""
        if self._state is _State.LOST:
            return
        self._state = _State.LOST
        if not self._reason:
            clean = reason.check(ConnectionDone)
            self._reason = "the peer ended the connection" if clean else reason.getErrorMessage()
        self._end_sending()
        self._timers.stop_all()
        try:
            self._session.lost(self, self._reason)
        finally:
            fire(self._lost, self._reason)

    # Messages

    def _deliver(self, frame: wire.Frame) -> None:
        if self.peer is None and self._side is Side.SERVER and (answer := http_answer(frame)) is not None:
            self._log.warn("{address}: an HTTP request came; closing", address=self.address)
            self._close("an HTTP request came", answer)
            return
        message = self._etiquette.read(frame)
        if self._etiquette.awaits_answer(message):
            self._owed += 1
        match message:
            case Hello():
                self._greeted(message)
            case Ping():
                self.send(Pong(message.token))
            case Pong():
                pass
            case Bye():
                self._close(printable(message.reason.decode(errors="replace")), b"")
            case _:
                if self.peer is None and self._side is Side.SERVER:
                    self._timers.start("greeting", self.settings.idle_timeout, self._ungreeted)
                self._session.received(self, message)

    def _greeted(self, hello: Hello) -> None:
        self._parser.limits = self.settings.limits
        self._timers.stop("greeting")
        if self._side is Side.SERVER and self._me is not None:
            self.send(self._me)
        self._session.greeted(self, hello)

    def _answered(self, answers: int) -> None:
        """End a half-closed connection of one who asks, once all its questions are answered."""
        self._owed = max(0, self._owed - answers)
        if self._half_closed and self._owed <= 0 and self._state is _State.OPEN:
            self._close("the peer asked all it wanted", b"")

    # Heartbeats and limits

    def _put(self, frames: bytes) -> None:
        if self._state is not _State.OPEN:
            return
        self._pulse.said()
        self._outbox.put(frames)
        if self._outbox.unsent > self.settings.unsent_most:
            self._drop(f"{self._outbox.unsent} bytes wait for a peer that does not take them")
        elif self._side is Side.SERVER and self._outbox.unsent > self.settings.unsent_reading:
            self._valve.shut("the peer does not take its answers")

    def _beat(self) -> None:
        self._timers.start("heartbeat", self.settings.heartbeat, self._beat)
        self.settled = self.peer is not None
        listening = self._valve.is_open and self.peer is not None and not self._half_closed
        match self._pulse.beat(self._outbox.unsent, listening=listening):
            case Beat.ASK if self.peer is not None:
                self._put(_PING)
            case Beat.SILENT:
                self._drop(f"nothing was heard for {self.settings.silent_beats} heartbeats")
            case Beat.STALLED:
                self._drop(f"{self._outbox.unsent} bytes wait for a peer that does not take them")

    def _drop(self, reason: str) -> None:
        if self._state is _State.OPEN:
            self._log.warn("{address}: {reason}; dropping the connection", address=self.address, reason=reason)
        self.abort(reason)

    def _ungreeted(self) -> None:
        hint = "" if self._side is Side.SERVER else "; is that the --listen address of a data server?"
        self.close(f"expected HELLO, and nothing more came{hint}")

    def _moved(self) -> None:
        self._pulse.moved()
        if self._outbox.unsent < self.settings.unsent_reading // 2:
            self._valve.open("the peer does not take its answers")
            if self._taken:  # later: this is called in the middle of sending, and others are to have their turn, too
                self._timers.start("taken", 0, partial(fire, self._taken, None))

    # The end

    def _close(self, reason: str, last: bytes) -> None:
        if self._state is not _State.OPEN:
            return
        self._reason = self._reason or reason
        self._state = _State.CLOSING
        self._valve.detach()  # the peer's own end must be seen
        self._timers.stop("greeting", "heartbeat")
        self._timers.start("patience", self.settings.patience, self._impatient)
        self._outbox.put(last)
        self._outbox.end_pour(reason)
        if self._outbox.idle:
            self._emptied()

    def _emptied(self) -> None:
        """All that was to be sent is sent."""
        if self._state is not _State.CLOSING or self._ending:
            return
        transport: Any = self.transport
        self._end_sending()
        if isinstance(transport, tcp.Connection) and not ISSLTransport.providedBy(transport) and not self._half_closed:
            # Closing a socket in which unread bytes stand resets it, and the peer might never read our last words.
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _impatient(self) -> None:
        self.abort("the peer did not take the rest in time")

    def _torn(self, reason: str) -> None:
        self._log.error("{address}: {reason}", address=self.address, reason=reason)
        self.abort(reason)

    def _outlet_gone(self) -> None:
        self._outbox.close(self._reason or "the connection was lost")

    def _end_sending(self) -> None:
        self._ending = True
        self._outbox.close(self._reason)
        if self._outlet is not None:
            self._outlet.detach()
