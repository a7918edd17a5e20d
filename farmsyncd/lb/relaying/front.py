"""Accepts clients on one listening socket, and knows all whom it has accepted.

When there are no more descriptors, clients wait in the kernel's queue: accepting pauses until a connection has ended. A
few descriptors are held back, so that a client that was accepted last still gets his connection to a node.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from farmsyncd.core.affinity import source_of
from farmsyncd.lb.relaying import sockets
from farmsyncd.lb.relaying.common import Common
from farmsyncd.lb.relaying.events import IN, Events
from farmsyncd.lb.relaying.names import Names
from farmsyncd.lb.relaying.prologue import Prologue
from farmsyncd.lb.relaying.relay import Relay
from farmsyncd.lb.relaying.seating import Dispatcher
from farmsyncd.lb.relaying.settings import RelaySettings

BACKLOG = 4096
"""Clients that may wait to be accepted; the kernel may allow fewer (net.core.somaxconn)."""

_SHORTEST_S, _LONGEST_S = 0.05, 1.0
_LOOKS = 4


class Front:
    """Relays those who connect to ``listener``, which is bound, and stays the caller's to close.

    ``source_of`` makes of a client's address what counts as one source.
    """

    _log = Logger()

    def __init__(
        self,
        listener: socket.socket,
        dispatcher: Dispatcher,
        reactor: Any,
        settings: RelaySettings,
        prologue: Prologue | None = None,
        source_of: Callable[[str], bytes] = source_of,
    ) -> None:
        self._listener = listener
        self._reactor = reactor
        self._settings = settings
        self._events = Events(reactor)
        self._common = Common(self._events, dispatcher, Names(reactor), settings, prologue, source_of, self)
        self._family = int(listener.family)
        self._accept = listener._accept  # type: ignore[attr-defined]  # noqa: SLF001 - accept() would make a costlier object
        self._accepting = False
        self._paused = False
        self._short = False
        self._sweeping: IDelayedCall | None = None
        limits = (settings.connect_ns, settings.greeting_ns, settings.half_closed_ns, settings.idle_ns)
        self._period_s = min(_LONGEST_S, max(_SHORTEST_S, min(limits) / 1e9 / _LOOKS))
        self._gone: list[Deferred[None]] = []
        self._limit: IDelayedCall | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._common.open)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._common.open)

    def start(self) -> None:
        """Listen, and relay."""
        sockets.prepare_listener(self._listener)
        self._listener.listen(BACKLOG)
        fd = self._listener.fileno()
        self._events.handlers[fd] = self
        self._events.watch(fd, IN)
        self._accepting = True
        self._events.start()
        self._sweep()

    def stop_accepting(self) -> None:
        """Accept nobody any more; those who are connected stay."""
        if self._accepting:
            self._accepting = False
            fd = self._listener.fileno()
            del self._events.handlers[fd]
            self._events.unwatch(fd)

    def accept_again(self) -> None:
        """Go on accepting after :meth:`stop_accepting`."""
        if not self._accepting:
            fd = self._listener.fileno()
            self._events.handlers[fd] = self
            self._events.watch(fd, IN)
            self._accepting, self._paused = True, False

    def look(self) -> None:
        """Accept those who wait now, as far as it goes in one go, without being told of them."""
        if self._accepting and not self._paused:
            self.event(IN)

    def finish(self, limit_s: float) -> Deferred[None]:
        """Accept nobody, wait until all connections have ended, and reset those that have not after ``limit_s``.

        Fires when nobody is left. The front cannot be started again; another call sets another limit.
        """
        if self._stopped:
            return succeed(None)
        self.stop_accepting()
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if limit_s > 0 and self._common.open:
            self._limit = self._reactor.callLater(limit_s, self._abort_all)
        else:
            self._abort_all()
        return gone

    def event(self, flags: int) -> None:  # noqa: ARG002 - there is one thing to do
        """Clients wait: take them in, so many at most that others get their turn."""
        for _ in range(self._settings.accepts):
            try:
                fd, client = self._accept()
            except BlockingIOError:
                if self._short:
                    self._short = False
                    self._log.info("no client waits to be accepted any more")
                return
            except OSError as error:
                if error.errno in sockets.SHORTAGE:
                    self.out_of_descriptors()
                    return
                continue  # this client has gone already, or the network said so
            relay = Relay(self._common, sockets.adopt(fd, self._family), client)
            try:
                relay.begin()
            except Exception:
                self._log.failure("a client is reset, for a reason that lies in the balancer")
                relay.abort()
            if self._paused:
                return

    def fail(self) -> None:
        """Go on with the next client."""

    def out_of_descriptors(self) -> None:
        """Accept nobody until somebody has gone."""
        if not self._paused and self._accepting:
            self._paused = True
            self._events.rewatch(self._listener.fileno(), 0)
        if not self._short:
            self._short = True
            self._log.warn(
                "there are no more descriptors (or ports, or memory) with {count} clients connected: others wait to "
                "be accepted until some have gone; raise the limit (LimitNOFILE, ulimit -n)",
                count=len(self._common.open),
            )

    def relay_ended(self) -> None:
        """Somebody has gone."""
        if self._paused:
            self._events.soon(self._resume)
        if self._gone:
            self._events.soon(self._stop_if_gone)

    def _resume(self) -> None:
        if self._paused and self._accepting and self._common.reserve.restore():
            self._paused = False
            self._events.rewatch(self._listener.fileno(), IN)

    def _sweep(self) -> None:
        self._sweeping = self._reactor.callLater(self._period_s, self._sweep)
        try:
            self._events.doRead()  # what has come in time was in time, although this process was late
            self._common.sweep(self._events.refresh())
            self._resume()
        except Exception:
            self._log.failure("what has lasted too long was not ended, for a reason that lies in the balancer")

    def _abort_all(self) -> None:
        self._limit = None
        for relay in list(self._common.open):
            relay.abort()
        self._stop_if_gone()

    def _stop_if_gone(self) -> None:
        if not self._gone or self._common.open:
            return
        everybody, self._gone = self._gone, []
        self._stopped = True
        for call in (self._limit, self._sweeping):
            if call is not None and call.active():
                call.cancel()
        self._limit = self._sweeping = None
        self._events.stop()
        self._common.close()
        for gone in everybody:
            gone.callback(None)
