"""Those who wait for a seat: in the order in which they came, so many at most, and each for so long at most.

Each waits in a *lane*: for one node, for any, or for a turn of its own. What becomes free in a lane goes to whoever has
waited longest of those whom it serves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.define(eq=False)
class Ticket(Generic[T]):
    """A place in the queue. ``due_ns`` is when the wait is over, come what may."""

    item: T
    lane: str
    number: int
    due_ns: int


class Queue(Generic[T]):
    """At most ``capacity`` wait, each for ``timeout_ns``. Times are of any clock that does not go back."""

    def __init__(self, capacity: int, timeout_ns: int) -> None:
        self._capacity = capacity
        self._timeout_ns = timeout_ns
        self._number = 0
        self._tickets: OrderedDict[int, Ticket[T]] = OrderedDict()
        self._lanes: dict[str, OrderedDict[int, Ticket[T]]] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket[T]]:
        """Those who wait at this moment, the longest first; they may leave meanwhile."""
        return iter(list(self._tickets.values()))

    def __contains__(self, ticket: Ticket[T]) -> bool:
        return ticket.number in self._tickets

    def join(self, item: T, lane: str, now_ns: int) -> Ticket[T] | None:
        """A place at the end; None when there is none."""
        if len(self._tickets) >= self._capacity:
            return None
        self._number += 1
        ticket = self._tickets[self._number] = Ticket(item, lane, self._number, now_ns + self._timeout_ns)
        self._lanes.setdefault(lane, OrderedDict())[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket[T]) -> bool:
        """Whether it was still waiting; it does not wait any more."""
        if self._tickets.pop(ticket.number, None) is None:
            return False
        self._leave_lane(ticket)
        return True

    def change_lane(self, ticket: Ticket[T], lane: str) -> None:
        """Wait for something else, without losing one's turn."""
        if ticket.lane == lane or ticket.number not in self._tickets:
            return
        self._leave_lane(ticket)
        ticket.lane = lane
        tickets = self._lanes.setdefault(lane, OrderedDict())
        newest = next(reversed(tickets), 0)
        tickets[ticket.number] = ticket
        if ticket.number < newest:
            self._lanes[lane] = OrderedDict(sorted(tickets.items()))

    def first(self, *lanes: str) -> Ticket[T] | None:
        """Who has waited longest of those in ``lanes``; it stays in the queue."""
        heads = [next(iter(self._lanes[lane].values())) for lane in lanes if lane in self._lanes]
        return min(heads, key=lambda ticket: ticket.number, default=None)

    def overdue(self, now_ns: int) -> list[Ticket[T]]:
        """Those whose wait is over: they have left."""
        over: list[Ticket[T]] = []
        while self._tickets:
            ticket = next(iter(self._tickets.values()))
            if now_ns < ticket.due_ns:
                break
            self.leave(ticket)
            over.append(ticket)
        return over

    def due_ns(self) -> int | None:
        """When the first wait is over; None when nobody waits."""
        return next(iter(self._tickets.values())).due_ns if self._tickets else None

    def _leave_lane(self, ticket: Ticket[T]) -> None:
        tickets = self._lanes[ticket.lane]
        del tickets[ticket.number]
        if not tickets:
            del self._lanes[ticket.lane]
