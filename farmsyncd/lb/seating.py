"""Which node a connection goes to: its source's own, or, for a source that has none, the one with the least load."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from farmsyncd.core.affinity import Affinity, Stay
from farmsyncd.core.balance import least_connections
from farmsyncd.core.eligibility import State
from farmsyncd.core.pace import Pace
from farmsyncd.lb.farm import Farm, Node

ANY = "*"
"""Wait for any node."""
TURN = "~"
"""Wait until the pace allows it. Neither can be a node's name."""
_EVEN_SO = 64
"""A source may have so many connections at its node before its share counts: the first is always the whole of them."""

NEW = "it was new here, and the node had the least connections for its weight"
REFUSED = "its node did not take the connection"
GONE = "its node was no part of the farm any more"
STATES = {state: f"its node was {'in ' if state is State.MAINTENANCE else ''}{state.value}" for state in State}


@attrs.define(eq=False)
class Seat:
    """One connection at a node; given up once, with ``leave`` or ``refused``.

    ``stay`` is None for a guest: a connection beyond its source's share, which goes where there is most room.
    """

    node: Node
    stay: Stay | None


@attrs.frozen
class Wait:
    """There is no seat now. ``lane`` is what has to become free: a node's name, ANY or TURN."""

    lane: str


_ANY, _TURN = Wait(ANY), Wait(TURN)


class Seating:
    """Gives out the seats of ``farm``.

    ``pace`` bounds how fast sources of nodes that are gone move to others: each of them costs its new node what a cold
    cache costs, and a node's worth of them at once could take down the next. ``share`` is the part of a node's
    connections that one source may have; None for all.
    """

    def __init__(
        self,
        farm: Farm,
        affinity: Affinity,
        pace: Pace,
        share: float | None,
        now_ns: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self.moved = 0
        """How many sources went to another node than before."""
        self.guests = 0
        """How many connections went elsewhere since their source had its share."""
        self._farm = farm
        self._affinity = affinity
        self._pace = pace
        self._share = share
        self._now_ns = now_ns
        self._random = random

    def seat(self, source: bytes, tried: Collection[str] = ()) -> Seat | Wait | None:
        """A seat for a connection of ``source``; what to wait for; None when it is of no use to wait.

        ``tried`` are nodes that did not take this connection.
        """
        now_ns = self._now_ns()
        self._farm.freshen(now_ns)
        stay = self._affinity.find(source, now_ns)
        if stay is not None:
            node = self._farm.nodes.get(stay.node)
            if node is not None and node.keeps and node.name not in tried:
                return self._own(stay, node, now_ns)
        return self._other(source, stay, tried, now_ns)

    def connected(self, seat: Seat) -> bool:
        """The node of ``seat`` has taken the connection; whether that says that it is back."""
        if seat.stay is not None and not seat.stay.taken:
            self._affinity.took(seat.stay)
        return self._farm.connected(seat.node)

    def refused(self, seat: Seat, reason: str) -> None:
        """The node of ``seat`` has not taken the connection: the seat is given up."""
        self.leave(seat)
        if seat.stay is not None:
            self._affinity.retract(seat.stay, self._now_ns())
        self._farm.refused(seat.node, reason)

    def leave(self, seat: Seat) -> None:
        """The seat is given up."""
        seat.node.connections -= 1
        if seat.stay is not None:
            self._affinity.release(seat.stay, self._now_ns())

    def over_share(self, stay: Stay, node: Node) -> bool:
        """Whether a source has all the connections at its node that it may have."""
        if self._share is None:
            return False
        whole = node.limit if node.limit != float("inf") else max(node.connections, _EVEN_SO / self._share)
        return stay.connections >= self._share * whole

    def turn_in_ns(self) -> int:
        """When the pace allows the next source to move."""
        return self._pace.wait_ns(self._now_ns())

    def _own(self, stay: Stay, node: Node, now_ns: int) -> Seat | Wait:
        if self._share is not None and self.over_share(stay, node):
            host = self._roomiest(())
            if host is not None and host is not node:
                self.guests += 1
                return self._take(host, None)
        if node.full:
            return Wait(node.name)
        self._affinity.join(stay, now_ns)
        return self._take(node, stay)

    def _other(self, source: bytes, stay: Stay | None, tried: Collection[str], now_ns: int) -> Seat | Wait | None:
        node = self._roomiest(tried)
        if node is None:
            return None if tried and not self._farm.takers(tried) else _ANY
        if stay is None:
            return self._take(node, self._affinity.hold(source, node.name, now_ns, REFUSED if tried else NEW))
        if not self._pace.take(now_ns) and not tried:  # a client that has tried already waits no longer
            return _TURN
        self.moved += 1
        return self._take(node, self._affinity.hold(source, node.name, now_ns, self._why(stay, tried)))

    def _roomiest(self, tried: Collection[str]) -> Node | None:
        return least_connections([node for node in self._farm.takers(tried) if not node.full], self._random)

    def _why(self, stay: Stay, tried: Collection[str]) -> str:
        node = self._farm.nodes.get(stay.node)
        if node is None:
            return GONE
        return REFUSED if node.name in tried else STATES[node.state]

    @staticmethod
    def _take(node: Node, stay: Stay | None) -> Seat:
        node.connections += 1
        node.total += 1
        return Seat(node, stay)
