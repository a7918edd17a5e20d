"""The part of a balancer that decides, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.task import Clock

from farmsyncd.core.affinity import source_of
from farmsyncd.core.eligibility import State
from farmsyncd.lb.config import BalancerConfig, NodeAddress
from farmsyncd.lb.deciding import deciding
from farmsyncd.lb.farm import Node, Sighting
from farmsyncd.lb.seating import Seat

SECOND = 10**9


def address(name: str) -> NodeAddress:
    """Where the node of one letter serves."""
    return NodeAddress(name, "10.0.0.1", 8000 + ord(name))


def sighted(names: str, **details: Any) -> dict[str, Sighting]:
    """What the data server says of nodes that are all alike."""
    return {name: Sighting(address(name), **details) for name in names}


class Scene:
    """A balancer's mind with the fixed nodes ``names``, one for each letter. Ties go to the first."""

    def __init__(self, names: str = "", random: Callable[[], float] = lambda: 0.0, **settings: Any) -> None:
        self.clock = Clock()
        settings = {"check": "none", "ramp_up_ns": 0, "data": "tcp:10.0.0.9:1", **settings}
        config = BalancerConfig(listen="tcp:0", node=tuple(map(address, names)), **settings)
        self.now_ns = 0
        self.mind = deciding(config, self.clock, lambda: self.now_ns, random)
        self.dispatcher, self.farm, self.affinity = self.mind.dispatcher, self.mind.farm, self.mind.affinity

    def wait(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        end = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end:
            step = min(end - self.now_ns, 5_000_000)
            self.now_ns += step
            self.clock.advance(step / SECOND)

    def seat(self, source: str | bytes, tried: Collection[str] = ()) -> Seat | None:
        """What a request is told at once; None when it waits or there is nothing to wait for."""
        told: list[Seat | None] = []
        key = source if isinstance(source, bytes) else source_of(source)
        request = self.dispatcher.request(key, told.append, tried)
        request.cancel()
        return told[0] if told else None

    def come(self, source: str | bytes, tried: Collection[str] = ()) -> Seat:
        """A connection that is taken by its node."""
        seat = self.seat(source, tried)
        assert seat is not None
        self.dispatcher.connected(seat)
        return seat

    def visit(self, source: str | bytes) -> str:
        """A connection that is taken and ends; its node."""
        seat = self.come(source)
        self.dispatcher.leave(seat)
        return seat.node.name

    def fail(self, name: str, times: int, others: str) -> None:
        """So many connections that the node did not take, of sources of their own."""
        for number in range(times):
            seat = self.seat(b"failing %d" % number, others)
            assert seat is not None
            assert seat.node.name == name
            self.dispatcher.refused(seat, "connection refused")

    def node(self, name: str) -> Node:
        """A node as it is now."""
        self.farm.freshen(self.now_ns)
        return self.farm.nodes[name]

    def states(self) -> dict[str, State]:
        """The states of all nodes."""
        self.farm.freshen(self.now_ns)
        return {name: node.state for name, node in self.farm.nodes.items()}


def names(*seats: Seat) -> str:
    """Which nodes they are at."""
    return "".join(seat.node.name for seat in seats)
