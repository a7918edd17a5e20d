"""How a new balancer takes over from the running one, over the Unix socket ``handover.sock`` in their state directory.

::

    new    {"listen": ENDPOINT, "workers": NUMBER, "sides": {NAME: PLACE, ...}}
                                 before anything of the old one has changed
    old    {"sockets": NUMBER, "sides": {NAME: NUMBER, ...}}
                                 the listening sockets, which come with so many bytes after the line: one for each
                                 worker, then those of the sides (http, dns, admin) that both have at the same place
           {"error": TEXT}       or: that cannot be
    new    ready                 it has read its configuration, and what was written down
    old    yours                 nobody is accepted here any more, and all is written down
    new    running               it accepts; the old one finishes its connections and leaves

Until it has heard ``running`` the old balancer goes on as if nothing had been said when the new one hangs up: clients
have waited in the kernel's queue meanwhile, which both hold. When the old one dies the new one has all it needs.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from farmsyncd.edges.unixpath import short
from farmsyncd.errors import ConfigError, Unavailable
from farmsyncd.lb.processes import sockets

NAME = "handover.sock"
_PATIENCE_S = 60.0
_LONGEST = 4096


class Request(msgspec.Struct, frozen=True):
    """What a new balancer wants to go on with."""

    listen: str
    workers: int
    sides: dict[str, str] = {}


class Offer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it gets: how many sockets, those of the sides among them, which come last and in this order."""

    sockets: int = 0
    sides: dict[str, int] = {}
    error: str = ""


@attrs.frozen
class Given:
    """The sockets themselves."""

    listening: Sequence[socket.socket]
    sides: Mapping[str, Sequence[socket.socket]] = attrs.field(factory=dict)

    @property
    def all(self) -> list[socket.socket]:
        """In the order in which they are passed."""
        return [*self.listening, *(one for side in self.sides.values() for one in side)]


class Giver(Protocol):
    """The old balancer."""

    def offer(self, request: Request) -> Given:
        """Its listening sockets. ConfigError when they are of no use for that."""

    def pause(self) -> Deferred[None]:
        """Accept nobody, and write all down."""

    def resume(self) -> Any:
        """Go on."""

    def leave(self) -> None:
        """Finish the connections, and end."""


class Giving(LineOnlyReceiver):
    """The old balancer's side, for one that wants to take over."""

    delimiter = b"\n"
    MAX_LENGTH = _LONGEST
    _log = Logger()

    def __init__(self, giver: Giver, ended: Callable[[], None]) -> None:
        self._giver = giver
        self._ended = ended
        self._step: Callable[[bytes], None] = self._offer
        self._paused = False

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - LineOnlyReceiver
        """The next step."""
        self._step(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002, N802 - IProtocol
        """The new one has hung up."""
        self._ended()
        if self._paused:
            self._paused = False
            self._go_on()

    def _offer(self, line: bytes) -> None:
        try:
            given = self._giver.offer(msgspec.json.decode(line, type=Request))
        except (msgspec.DecodeError, ConfigError) as error:
            self._say(Offer(error=str(error)))
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self._log.info("another balancer wants to take over")
        every = given.all
        self._say(Offer(sockets=len(every), sides={name: len(side) for name, side in given.sides.items()}))
        for one in every:
            self.transport.sendFileDescriptor(one.fileno())  # type: ignore[union-attr]
        self.transport.write(b"*" * len(every))  # type: ignore[union-attr]
        self._step = self._pause

    def _pause(self, _: bytes) -> None:
        self._step = self._wait
        self._giver.pause().addCallbacks(self._is_paused, self._cannot)

    def _is_paused(self, _: object) -> None:
        if not self.connected:
            self._go_on()
            return
        self._paused = True
        self._step = self._leave
        self.transport.write(b"yours\n")  # type: ignore[union-attr]

    def _leave(self, _: bytes) -> None:
        self._paused = False
        self._step = self._wait
        self._log.info("another balancer has taken over: this one finishes its connections")
        self._giver.leave()

    def _wait(self, _: bytes) -> None:
        """It has nothing to say now."""

    def _cannot(self, failure: Failure) -> None:
        self._log.failure("this balancer cannot let another one take over", failure)
        self.transport.loseConnection()  # type: ignore[union-attr]
        self._go_on()

    def _go_on(self) -> None:
        self._log.warn("the balancer that wanted to take over has given up: this one goes on")
        self._giver.resume()

    def _say(self, offer: Offer) -> None:
        self.transport.write(msgspec.json.encode(offer) + b"\n")  # type: ignore[union-attr]


class GivingFactory(Factory):
    """One at a time may take over."""

    noisy = False

    def __init__(self, giver: Giver) -> None:
        self._giver = giver
        self._busy = False

    def buildProtocol(self, addr: IAddress | None) -> Giving | None:  # noqa: ARG002, N802 - IProtocolFactory
        """The old balancer's side; None, which hangs up, while there is one."""
        if self._busy:
            return None
        self._busy = True
        return Giving(self._giver, self._free)

    def _free(self) -> None:
        self._busy = False


class Taking:
    """The new balancer's side. It waits for answers: it has nothing else to do."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.settimeout(_PATIENCE_S)
        self._passed: list[socket.socket] = []

    @classmethod
    def connect(cls, path: Path) -> Taking | None:
        """None when nobody is there."""
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short(path) as name:
                channel.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            channel.close()
            return None
        except OSError as error:
            channel.close()
            raise ConfigError(f"expected to take over by {path}: {error.strerror}; run as the same user") from None
        return cls(channel)

    def ask(self, request: Request) -> Given:
        """The listening sockets. ConfigError when the old one does not give them, Unavailable when it hangs up."""
        try:
            self._channel.sendall(msgspec.json.encode(request) + b"\n")
            offer = msgspec.json.decode(self._line(), type=Offer)
            for _ in range(offer.sockets):
                self._byte()
        except (OSError, msgspec.DecodeError) as error:
            self.close()
            raise Unavailable(f"expected the running balancer's sockets, and it hung up ({error}); try again") from None
        if offer.error:
            self.close()
            raise ConfigError(offer.error)
        passed, self._passed = self._passed, []
        cut = len(passed) - sum(offer.sides.values())
        rest = iter(passed[cut:])
        return Given(passed[:cut], {name: list(islice(rest, count)) for name, count in offer.sides.items()})

    def switch(self) -> bool:
        """Have the old one stop accepting; whether it is still there. Unavailable when it does not answer."""
        try:
            self._channel.sendall(b"ready\n")
            return self._line() == b"yours"
        except TimeoutError:
            raise Unavailable(f"the running balancer did not let go within {_PATIENCE_S:g} s: it goes on") from None
        except OSError:
            return False

    def done(self) -> None:
        """Let the old one leave."""
        with contextlib.suppress(OSError):
            self._channel.sendall(b"running\n")
        self.close()

    def close(self) -> None:
        """Hang up: unless all is done, the old one goes on."""
        self._channel.close()
        sockets.close(self._passed)
        self._passed.clear()

    def _line(self) -> bytes:
        """One line without its end."""
        line = b""
        while (byte := self._byte()) != b"\n" and len(line) < _LONGEST:
            line += byte
        return line

    def _byte(self) -> bytes:
        """The next byte: sockets come with any of them. ConnectionError at the end."""
        byte, passed = sockets.take(self._channel)
        self._passed += passed
        if not byte:
            raise ConnectionError("it has ended")
        return byte
