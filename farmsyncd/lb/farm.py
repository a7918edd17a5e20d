"""The nodes that a balancer knows: what is known of each, the state that follows, and who is given what.

What is known comes from four sides: the operator's orders, the data server's sightings, checks, and the fate of the
clients' connections. Whatever changes, :meth:`Farm.review` works out all states anew; what only time changes (a ramp, a
failure that is forgiven, a node to be tried again) waits until the next connection asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import attrs
from twisted.logger import Logger

from farmsyncd.core.balance import Penalty, ramped
from farmsyncd.core.eligibility import Facts, Order, State, best, rule, state_of, those
from farmsyncd.core.health import Health, Patience
from farmsyncd.lb.config import NodeAddress, NodeConfig

_NEVER = 1 << 63
_STEP_NS = 100_000_000  # how often weights are worked out anew while time changes them
_COLD = frozenset({State.DOWN, State.MAINTENANCE, State.STALE})
"""A node that was one of these has cold caches when it is back, and none of its former sources."""


@attrs.frozen
class Rules:
    """What is configured for all nodes, and for some. Times in nanoseconds."""

    patience: Patience
    forgive_ns: int = 5_000_000_000
    ramp_up_ns: int = 30_000_000_000
    max_connections: int | None = None
    nodes: Mapping[str, NodeConfig] = attrs.field(factory=dict)


@attrs.frozen
class Sighting:
    """What the data server says of a node."""

    address: NodeAddress
    seen: bool = True
    """Whether it is connected and has something to serve."""
    recent: bool = True
    """Whether it was, a short while ago: so it is taken into the farm although it is not seen now."""
    missed: str = ""
    """The activation that it is known to have missed, in words; empty when there is none."""


@attrs.define(eq=False)
class Node:
    """A node, with what the balancer knows of it. Times are of the balancer's clock, in nanoseconds."""

    address: NodeAddress
    fixed: bool
    """Named in the configuration, so that it stays whatever the data server says."""
    health: Health
    penalty: Penalty
    whole_weight: float = 1.0
    limit: float = float("inf")
    """How many connections it may have."""
    order: Order = Order.READY
    seen: bool = True
    missed: str = ""
    ramp_from_ns: int | None = None
    """When it was new or back; None when that is long ago."""
    connections: int = 0
    total: int = 0
    failures: int = 0
    state: State = State.READY
    takes: bool = True
    """Whether it gets new sources at this moment."""
    keeps: bool = True
    """Whether it gets its own sources at this moment."""
    weight: float = 1.0
    """What its weight is at this moment."""
    doubted: bool = False
    """Whether it did not take a connection lately, so that its weight is less."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.address.name

    @property
    def full(self) -> bool:
        """Whether it has all the connections that it may have."""
        return self.connections >= self.limit

    @property
    def reason(self) -> str:
        """Why it is in its state; empty for one that is ready."""
        match self.state:
            case State.READY:
                return ""
            case State.DOWN:
                return self.health.reason
            case State.STALE:
                return self.missed
            case State.DRAINING if self.order is not Order.DRAIN:
                return "the data server does not see it, or it has no data yet"
        return "the operator said so"

    def weigh(self, now_ns: int, ramp_up_ns: int) -> bool:
        """Work out its weight; whether time alone will change it again."""
        ramp = 1.0
        if self.ramp_from_ns is not None:
            ramp = ramped(now_ns - self.ramp_from_ns, ramp_up_ns)
            if ramp == 1.0:
                self.ramp_from_ns = None
        factor = self.penalty.factor(now_ns)
        self.doubted = factor < 1.0
        self.weight = self.whole_weight * ramp * factor
        return ramp < 1.0 or factor < 1.0


class Farm:
    """All nodes. ``fixed`` are those of the configuration; ``now_ns`` is a clock that does not go back."""

    _log = Logger()

    def __init__(self, fixed: Iterable[NodeAddress], rules: Rules, now_ns: Callable[[], int]) -> None:
        self.serving: State | None = None
        """The state of those that get new sources; None when there is nobody."""
        self.review_ns = _NEVER
        """When time alone changes something."""
        self._rules = rules
        self._now_ns = now_ns
        self._orders: dict[str, Order] = {}
        self._nodes: dict[str, Node] = {}
        self._takers: list[Node] = []
        self._told_of_farm = False
        for address in fixed:
            self._add(address, fixed=True)
        self.review()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return self._nodes

    @property
    def orders(self) -> Mapping[str, Order]:
        """What the operator wants, of nodes that are gone for now as well."""
        return self._orders

    def takers(self, tried: Collection[str] = ()) -> list[Node]:
        """Who gets new sources; besides those ``tried`` in vain, or the next best when these are all."""
        if not tried:
            return self._takers
        untried = [node for node in self._takers if node.name not in tried]
        if untried:
            return untried
        others = [node for node in self._nodes.values() if node.name not in tried]
        state = best(node.state for node in others)
        return [node for node in others if node.state is state and state is not None]

    def freshen(self, now_ns: int) -> None:
        """Take account of the time that has passed."""
        if now_ns >= self.review_ns:
            self.review()

    def observe(self, sightings: Mapping[str, Sighting], *, settled: bool = True) -> None:
        """The data server's word on all the nodes that it knows.

        One that it does not know is forgotten. While it is not ``settled`` it may not have seen everybody yet: so
        nobody is forgotten, and nobody counts as not seen. Fixed nodes stay, with their addresses, in any case.
        """
        for name, sighting in sightings.items():
            node = self._nodes.get(name)
            if node is None and (sighting.seen or sighting.recent):
                node = self._add(sighting.address, fixed=False)
            if node is None:
                continue
            if not node.fixed:
                self._move(node, sighting.address)
                node.seen = sighting.seen or not settled
            node.missed = sighting.missed
        for name in [name for name in self._nodes if settled and name not in sightings]:
            self._nodes[name].missed = ""
            if not self._nodes[name].fixed:
                del self._nodes[name]
                self._log.info("node {node} is no part of the farm any more", node=name)
        self._told_of_farm = True
        self.review()

    def command(self, name: str, order: Order) -> None:
        """The operator's word on a node, which may not be there yet."""
        if order is Order.READY:
            self._orders.pop(name, None)
        else:
            self._orders[name] = order
        if name in self._nodes:
            self._nodes[name].order = order
            self.review()

    def checked(self, name: str, good: bool, reason: str = "") -> bool:
        """A check of a node has ended; the node may be gone by now. Whether the farm has changed."""
        node = self._nodes.get(name)
        if node is None or not node.health.checked(good, reason):
            return False
        self.review()
        return True

    def connected(self, node: Node) -> bool:
        """A node has taken a connection. Whether the farm has changed."""
        if not node.health.refused_in_row or not node.health.connected():
            return False
        self.review()
        return True

    def refused(self, node: Node, reason: str) -> None:
        """A node has not taken a connection."""
        now_ns = self._now_ns()
        node.failures += 1
        node.penalty.add(now_ns)
        if node.health.refused(reason, now_ns) or node.health.retry_at_ns is not None:
            self.review()
            return
        node.weigh(now_ns, self._rules.ramp_up_ns)
        self.review_ns = min(self.review_ns, now_ns + _STEP_NS)

    def review(self) -> None:
        """Work out all states, and who is given what."""
        now_ns = self._now_ns()
        self.review_ns = _NEVER
        for node in self._nodes.values():
            node.health.retry(now_ns)
            facts = Facts(node.order, node.health.up, node.seen, bool(node.missed))
            self._enter(node, state_of(facts), now_ns)
            if node.weigh(now_ns, self._rules.ramp_up_ns):
                self.review_ns = min(self.review_ns, now_ns + _STEP_NS)
            if not node.health.up and node.health.retry_at_ns is not None:
                self.review_ns = min(self.review_ns, node.health.retry_at_ns)
        ruling = rule({name: node.state for name, node in self._nodes.items()})
        for name, node in self._nodes.items():
            node.takes, node.keeps = name in ruling.takes, name in ruling.keeps
        self._takers = [node for node in self._nodes.values() if node.takes]
        self._tell(ruling.state)

    def _add(self, address: NodeAddress, *, fixed: bool) -> Node:
        name = address.name
        own = self._rules.nodes.get(name, NodeConfig())
        limit = own.max_connections or self._rules.max_connections or float("inf")
        node = Node(
            address,
            fixed,
            Health(self._rules.patience),
            Penalty(self._rules.forgive_ns),
            own.weight,
            limit,
            self._orders.get(name, Order.READY),
        )
        if self._told_of_farm:  # at the balancer's own start nobody is new
            node.ramp_from_ns = self._now_ns()
        self._nodes[name] = node
        self._log.info("node {node} serves at {address}", node=name, address=str(address))
        return node

    def _move(self, node: Node, address: NodeAddress) -> None:
        if node.address == address:
            return
        self._log.info("node {node} serves at {address} now", node=node.name, address=str(address))
        node.address = address
        node.health = Health(self._rules.patience)
        node.penalty.clear()

    def _enter(self, node: Node, state: State, now_ns: int) -> None:
        if state is node.state:
            return
        before, node.state = node.state, state
        if state is State.READY:
            if before in _COLD:
                node.ramp_from_ns = now_ns
            self._log.info("node {node} is ready again; it was {before}", node=node.name, before=before.value)
        else:
            self._log.warn("node {node} is {state}: {why}", node=node.name, state=state.value, why=node.reason)

    def _tell(self, serving: State | None) -> None:
        before, self.serving = self.serving, serving
        if serving is before:
            return
        if serving is None:
            self._log.critical("there is no node left to serve: connections wait for one")
        elif serving is not State.READY:
            self._log.critical(
                "no node is ready: all connections go to {those}", those=those(len(self._takers), serving)
            )
        elif before is not None:
            self._log.info("{count} nodes are ready again", count=len(self._takers))
