"""Which node a source that is not known yet is sent to: the one with the least connections for its weight.

A node's load is its connections, and the one to come, over its weight: so a node of twice the weight carries twice the
connections. While a farm has little to do, that alone would send every new source to the heaviest node, and they stay
where they went: so when the least load is an idle node's, it is one of all idle nodes that are in no doubt, by chance,
and as often as its weight says. (Linux' virtual server calls these "shortest expected delay" and "never queue".)

The weight that counts is the configured one, less what :func:`ramped` takes from a node that has just come, whose
caches are cold, and what :class:`Penalty` takes from one that does not take its connections: such a node has none open,
and would otherwise be given all there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import attrs

FLOOR = 0.1
"""What a node weighs when its ramp begins, of its whole weight: enough to be tried."""
PER_FAILURE = 8.0
"""Each connection that a node did not take divides its weight by this, at first."""
_FORGIVEN = 0.05  # of one failure: less than this is nothing, so that an idle node is in the end chosen again
_MOST = 12.0  # failures at once that count: the weight never reaches zero


class Loaded(Protocol):
    """A node as the choice sees it. ``weight`` is what counts at this moment, more than zero."""

    @property
    def connections(self) -> int:
        """How many it has open."""

    @property
    def weight(self) -> float:
        """What counts of its weight now."""

    @property
    def doubted(self) -> bool:
        """Whether it did not take a connection lately."""


N = TypeVar("N", bound=Loaded)


def load(node: Loaded) -> float:
    """What the node would bear with one connection more."""
    return (node.connections + 1) / node.weight


def least_connections(nodes: Sequence[N], random: Callable[[], float]) -> N | None:
    """The node for a new source; None when there is no node.

    Where it can be several, it is by ``random`` (uniform in [0, 1), as ``random.random`` is).
    """
    best = candidates(nodes)
    if len(best) < 2:
        return best[0] if best else None
    left = random() * sum(node.weight for node in best)
    for node in best:
        left -= node.weight
        if left < 0:
            return node
    return best[-1]  # what rounding leaves


def candidates(nodes: Sequence[N]) -> list[N]:
    """Those whom a new source may be sent to: each as often as its weight says."""
    best: list[N] = []
    lowest = float("inf")
    for node in nodes:
        found = (node.connections + 1) / node.weight  # load(), without the call: this is done for each new source
        if found < lowest:
            lowest = found
            best = [node]
        elif found == lowest:
            best.append(node)
    if all(node.connections for node in best):
        return best
    return [node for node in nodes if not node.connections and not node.doubted] or best


def ramped(elapsed_ns: int, ramp_ns: int) -> float:
    """The part of its weight that a node has so long after it came: from FLOOR up to 1, in a straight line."""
    if elapsed_ns >= ramp_ns:
        return 1.0
    return FLOOR + (1.0 - FLOOR) * max(0, elapsed_ns) / ramp_ns


@attrs.define
class Penalty:
    """How many connections a node did not take lately; each counts half after ``half_life_ns``."""

    half_life_ns: int
    _failures: float = 0.0
    _as_of_ns: int = 0

    def add(self, now_ns: int) -> None:
        """One more."""
        self._failures = min(self.failures(now_ns) + 1.0, _MOST)
        self._as_of_ns = now_ns

    def clear(self) -> None:
        """Forget them: it is not the same node any more."""
        self._failures = 0.0

    def failures(self, now_ns: int) -> float:
        """How many count at this moment."""
        if not self._failures:
            return 0.0
        left = self._failures * 0.5 ** (max(0, now_ns - self._as_of_ns) / self.half_life_ns)
        return left if left >= _FORGIVEN else 0.0

    def factor(self, now_ns: int) -> float:
        """What the weight is multiplied by: 1 when all is forgiven."""
        failures = self.failures(now_ns)
        return 1.0 if not failures else float(PER_FAILURE**-failures)
