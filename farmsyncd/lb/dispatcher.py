"""Gives each new connection a seat at a node: at once when there is one, else after a wait that is bounded.

This is all that a relay has to know of the farm::

    request(source, decided, tried)   decided(seat) within the call, or later, or decided(None)
    connected(seat)                   the node has taken the connection
    refused(seat, reason)             it has not; the seat is given up: request() again with the node among ``tried``
    leave(seat)                       the connection has ended; the seat is given up

Whoever has news of the farm tells it here, too (``observe``, ``checked``, ``command``): somebody may wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from farmsyncd.core.eligibility import Order
from farmsyncd.core.queueing import Queue, Ticket
from farmsyncd.lb.farm import Farm, Sighting
from farmsyncd.lb.seating import ANY, TURN, Seat, Seating, Wait

Decided = Callable[[Seat | None], None]
_SHORTEST_WAIT_S = 0.01  # several take their turns at once, then


@attrs.define(eq=False)
class Request:
    """A connection that waits for its seat, or has been told."""

    source: bytes
    decided: Decided
    tried: Collection[str]
    _queue: Queue[Request]
    ticket: Ticket[Request] | None = None

    def cancel(self) -> None:
        """The client has gone: ``decided`` is not called any more. Harmless after it was called."""
        if self.ticket is not None:
            self._queue.leave(self.ticket)


class Dispatcher:
    """Seats for connections, at the nodes of ``farm``. ``clock`` wakes those who waited long enough."""

    def __init__(
        self,
        farm: Farm,
        seating: Seating,
        queue: Queue[Request],
        now_ns: Callable[[], int],
        clock: IReactorTime,
    ) -> None:
        self.farm = farm
        self.seating = seating
        self.waited = 0
        """How many connections had to wait."""
        self.timed_out = 0
        self.turned_away = 0
        """How many found the queue full."""
        self._queue = queue
        self._now_ns = now_ns
        self._clock = clock
        self._alarm: IDelayedCall | None = None
        self._sweep_ns = 0
        self._stopped = False
        self._told = Request(b"", _ignore, (), queue)

    @property
    def waiting(self) -> int:
        """How many connections wait for a node."""
        return len(self._queue)

    # For relays

    def request(self, source: bytes, decided: Decided, tried: Collection[str] = ()) -> Request:
        """A seat for a new connection of ``source``, at none of the nodes ``tried`` in vain.

        ``decided`` is called within this call when that can be; else later, with None when no seat was to be had
        in time. It is called once, unless the request is cancelled before.
        """
        found = self.seating.seat(source, tried)
        if isinstance(found, Wait) and not self._stopped:
            return self._wait(Request(source, decided, tried, self._queue), found.lane)
        decided(None if isinstance(found, Wait) else found)
        return self._told

    def connected(self, seat: Seat) -> None:
        """The node of ``seat`` has taken the connection."""
        if self.seating.connected(seat):
            self._sweep()

    def refused(self, seat: Seat, reason: str) -> None:
        """The node of ``seat`` has not taken the connection: the seat is given up."""
        self.seating.refused(seat, reason)
        if self._queue:
            self._sweep()

    def leave(self, seat: Seat, *, barren: bool = False) -> None:
        """The connection of ``seat`` has ended: the seat is given up, once.

        ``barren`` says that the node reset it before it had sent a single byte: such a node counts as one that takes no
        connections, since one that fails faster than the others work would be given all there are.
        """
        if barren:
            self.refused(seat, "it reset a connection without a word")
            return
        self.seating.leave(seat)
        if self._queue:
            self._serve(seat.node.name, ANY)

    # For whoever has news

    def observe(self, sightings: Mapping[str, Sighting], *, settled: bool = True) -> None:
        """See :meth:`Farm.observe`."""
        self.farm.observe(sightings, settled=settled)
        self._sweep()

    def checked(self, name: str, good: bool, reason: str = "") -> None:
        """See :meth:`Farm.checked`."""
        if self.farm.checked(name, good, reason):
            self._sweep()

    def command(self, name: str, order: Order) -> None:
        """See :meth:`Farm.command`."""
        self.farm.command(name, order)
        self._sweep()

    def stop(self) -> None:
        """Let nobody wait any more: the balancer ends."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for ticket in self._queue:
            if self._queue.leave(ticket):
                ticket.item.decided(None)

    # The queue

    def _wait(self, request: Request, lane: str) -> Request:
        request.ticket = self._queue.join(request, lane, self._now_ns())
        if request.ticket is None:
            self.turned_away += 1
            request.decided(None)
            return request
        self.waited += 1
        self._arm()
        return request

    def _serve(self, *lanes: str) -> None:
        """Something has become free in these lanes: for those who waited longest."""
        while (ticket := self._queue.first(*lanes)) is not None:
            lane = ticket.lane
            if not self._try(ticket) and ticket.lane == lane:
                return

    def _sweep(self) -> None:
        """Anything may have changed: see what each of them can have now."""
        for ticket in self._queue if len(self._queue) else ():
            if ticket in self._queue:
                self._try(ticket)
        if self._queue:
            self._arm()

    def _try(self, ticket: Ticket[Request]) -> bool:
        request = ticket.item
        found = self.seating.seat(request.source, request.tried)
        if isinstance(found, Wait):
            self._queue.change_lane(ticket, found.lane)
            return False
        self._queue.leave(ticket)
        request.decided(found)
        return True

    def _arm(self) -> None:
        """Wake up when the next one has waited long enough, may have its turn, or time has changed a node."""
        now_ns, due_ns = self._now_ns(), self._queue.due_ns()
        if due_ns is None or self._stopped:
            return
        self._sweep_ns = self.farm.review_ns
        moments = [due_ns, self._sweep_ns]
        if self._queue.first(TURN) is not None:
            moments.append(now_ns + self.seating.turn_in_ns())
        delay = max(_SHORTEST_WAIT_S, (min(moments) - now_ns) / 1e9)
        if self._alarm is None:
            self._alarm = self._clock.callLater(delay, self._wake)
        elif delay < self._alarm.getTime() - self._clock.seconds():
            self._alarm.reset(delay)

    def _wake(self) -> None:
        self._alarm = None
        now_ns = self._now_ns()
        for ticket in self._queue.overdue(now_ns):
            self.timed_out += 1
            ticket.item.decided(None)
        if now_ns >= self._sweep_ns:
            self.farm.freshen(now_ns)
            self._sweep()
        else:
            self._serve(TURN)
        self._arm()


def _ignore(_seat: Seat | None) -> None:
    """Nobody waits for it."""
