"""The nodes that a balancer knows, and which of them a connection goes to."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs
from twisted.logger import Logger

from farmsyncd.core.affinity import Affinity, Stay
from farmsyncd.core.balance import Candidate, least_connections
from farmsyncd.lb.config import NodeAddress

DOWN_AFTER = 3
"""So many connections that a node did not take, one after the other, and its sources are sent elsewhere at once."""


class NodeState(enum.Enum):
    """What a node is given."""

    READY = "ready"  # all that is its own, and new sources
    DRAINING = "draining"  # its own sources: the data server does not see it at this moment
    FAILING = "failing"  # its own sources: it did not take a connection a moment ago
    DOWN = "down"  # nothing, if there is another one


@attrs.define(eq=False)
class Node:
    """A node, with what the balancer has seen of it. Times are of the balancer's clock, in nanoseconds."""

    address: NodeAddress
    fixed: bool
    """Named in the configuration, so that it stays whatever the data server says."""
    wanted: bool = True
    """Whether the data server sees it, or it is fixed."""
    connections: int = 0
    total: int = 0
    failures: int = 0
    failures_in_row: int = 0
    shunned_until_ns: int | None = None

    def state(self, now_ns: int) -> NodeState:
        """What it is given at ``now_ns``."""
        if self.shunned_until_ns is not None and now_ns < self.shunned_until_ns:
            return NodeState.DOWN if self.failures_in_row >= DOWN_AFTER else NodeState.FAILING
        return NodeState.READY if self.wanted else NodeState.DRAINING


@attrs.define(eq=False)
class Seat:
    """One connection of a source at a node; given up once, with :meth:`Farm.leave` or :meth:`Farm.refused`."""

    node: Node
    stay: Stay


class Farm:
    """Which nodes there are, and who goes to which.

    Nodes come from the configuration (``fixed``) and from the data server (:meth:`observe`). ``now_ns`` is a clock
    that does not go back, ``random`` is uniform in [0, 1).
    """

    _log = Logger()

    def __init__(
        self,
        fixed: Iterable[NodeAddress],
        affinity: Affinity,
        now_ns: Callable[[], int],
        random: Callable[[], float],
        retry_after_ns: int,
    ) -> None:
        self._nodes = {address.name: Node(address, fixed=True) for address in fixed}
        self._affinity = affinity
        self._now_ns = now_ns
        self._random = random
        self._retry_after_ns = retry_after_ns

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return self._nodes

    @property
    def sources(self) -> int:
        """How many sources are remembered."""
        return len(self._affinity)

    def state(self, node: Node) -> NodeState:
        """What ``node`` is given at this moment."""
        return node.state(self._now_ns())

    def observe(self, present: Mapping[str, NodeAddress], away: Collection[str]) -> None:
        """The data server's word: nodes that are ``present``, and those that it knows and does not see now.

        A node that is away keeps its sources, since its web server may well go on; one that is in neither is
        forgotten. Fixed nodes stay as they are.
        """
        for name, address in present.items():
            node = self._nodes.get(name)
            if node is None:
                self._nodes[name] = Node(address, fixed=False)
                self._log.info("node {node} serves at {host}:{port}", node=name, host=address.host, port=address.port)
            elif not node.fixed:
                self._update(node, address, wanted=True)
        for name, node in list(self._nodes.items()):
            if node.fixed or name in present:
                continue
            if name in away:
                self._update(node, node.address, wanted=False)
            else:
                del self._nodes[name]
                self._log.info("node {node} is no part of the farm any more", node=name)

    def seat(self, source: bytes, tried: Collection[str] = ()) -> Seat | None:
        """Where a new connection of ``source`` goes; None when there is no node besides those ``tried`` in vain."""
        now_ns = self._now_ns()
        name = self._affinity.find(source, now_ns)
        if name is None or name in tried or not self._keeps(name, now_ns, tried):
            name = least_connections(self._candidates(now_ns, tried), self._random)
        if name is None:
            return None
        node = self._nodes[name]
        node.connections += 1
        node.total += 1
        return Seat(node, self._affinity.hold(source, name, now_ns))

    def connected(self, seat: Seat) -> None:
        """The node of ``seat`` has taken the connection."""
        node = seat.node
        if node.failures_in_row >= DOWN_AFTER:
            self._log.info("node {node} takes connections again", node=node.address.name)
        node.failures_in_row, node.shunned_until_ns = 0, None

    def refused(self, seat: Seat, reason: str) -> None:
        """The node of ``seat`` has not taken the connection."""
        node = seat.node
        node.failures += 1
        node.failures_in_row += 1
        node.shunned_until_ns = self._now_ns() + self._retry_after_ns
        if node.failures_in_row == DOWN_AFTER:
            self._log.warn("node {node} takes no connections: {reason}", node=node.address.name, reason=reason)
        self.leave(seat)

    def leave(self, seat: Seat) -> None:
        """The connection of ``seat`` has ended."""
        seat.node.connections -= 1
        self._affinity.release(seat.stay, self._now_ns())

    def _keeps(self, name: str, now_ns: int, tried: Collection[str]) -> bool:
        """Whether the node ``name`` still gets its own sources: when it is not down, or when all others are, too."""
        node = self._nodes.get(name)
        if node is None:
            return False
        if node.state(now_ns) is not NodeState.DOWN:
            return True
        return not any(other.available for other in self._candidates(now_ns, {name, *tried}))

    def _candidates(self, now_ns: int, tried: Collection[str]) -> list[Candidate]:
        return [
            Candidate(name, node.connections, node.state(now_ns) is NodeState.READY)
            for name, node in self._nodes.items()
            if name not in tried
        ]

    def _update(self, node: Node, address: NodeAddress, *, wanted: bool) -> None:
        if node.address != address:
            self._log.info(
                "node {node} serves at {host}:{port} now", node=address.name, host=address.host, port=address.port
            )
            node.address, node.failures_in_row, node.shunned_until_ns = address, 0, None
        if node.wanted != wanted:
            if wanted:
                self._log.info("node {node} is back", node=address.name)
            else:
                self._log.warn("node {node} is away: it gets no new sources", node=address.name)
            node.wanted = wanted
