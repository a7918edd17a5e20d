"""The addresses that the farm's name has: those of the nodes that take new clients, each as often as its weight says.

Whoever is given several addresses may use any of them: resolvers turn and shuffle them. So what counts is how often an
address is in an answer at all, and an answer always has the same number of them: as many as there can be with the
heaviest node in all answers at most, and every other one in its part of them. Where all weigh the same these are all
addresses, and only their order turns.

The addresses lie on a circle, each as long as its weight. An answer takes them from points at equal distances, none of
which is shorter than the longest address; the next answer begins a distance further on. Where weights differ it begins
a little beyond that, by the golden ratio, which brings all parts of the circle in their turn without a pattern.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from farmsyncd.lb.config import NodeAddress

Find = Callable[[str, int, Callable[[Sequence[tuple[int, object]]], None]], None]
"""Looks a name up, at once or later; see :meth:`farmsyncd.lb.relaying.names.Names.find`."""

_GOLDEN = (5**0.5 - 1) / 2
_NEARLY = 1e-9  # weights are sums of products: who differs by less does not differ


@lru_cache(maxsize=8192)
def _literal(host: str) -> str | None:
    """``host`` as it is spelled in answers; None when it is a name. Asked for each node with each question."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


class Addresses:
    """Called with 4 or 6, gives addresses of that family, the first choice first; None when no node has any, of either.

    ``eligible`` gives the nodes with their weights. One whose address is a name is looked up with ``find``, again and
    again; its former addresses count until there are new ones, and share its weight. One on a Unix socket has none that
    a client elsewhere could use.
    """

    def __init__(self, eligible: Callable[[], Sequence[tuple[NodeAddress, float]]], find: Find) -> None:
        self._eligible = eligible
        self._find = find
        self._known: dict[str, tuple[str, ...]] = {}
        self._turns = {4: 0.0, 6: 0.0}

    def __call__(self, version: int) -> Sequence[str] | None:
        """The addresses of one family, in this turn's order."""
        nodes = [(node, weight) for node, weight in self._eligible() if not node.path]
        weights: dict[str, float] = {}
        nobody = True
        for node, weight in nodes:
            own = self._of(node)
            alike = [address for address in own if (":" in address) == (version == 6)]
            for address in alike:
                weights[address] = weights.get(address, 0.0) + weight / len(alike)
            nobody = nobody and not own
        if self._known:
            self._known = {node.host: self._known[node.host] for node, _ in nodes if node.host in self._known}
        return None if nobody else self._turn(version, weights)

    def _turn(self, version: int, weights: Mapping[str, float]) -> Sequence[str]:
        if not weights:
            return []
        addresses, most = list(weights), max(weights.values())
        if most - min(weights.values()) <= _NEARLY * most:
            first = int(self._turns[version] + 1) % len(addresses)
            self._turns[version] = first
            return addresses[first:] + addresses[:first]
        ends = list(accumulate(weights.values()))
        count = int(ends[-1] / most + _NEARLY)
        turn = self._turns[version] = (self._turns[version] + 1 + _GOLDEN) % count
        places = [(turn + number) % count * (ends[-1] / count) for number in range(count)]
        chosen = [addresses[min(bisect_right(ends, place), len(addresses) - 1)] for place in places]
        return list(dict.fromkeys(chosen))

    def _of(self, node: NodeAddress) -> Sequence[str]:
        literal = _literal(node.host)
        if literal is not None:
            return (literal,)
        self._find(node.host, node.port, lambda targets: self._found(node.host, targets))
        return self._known.get(node.host, ())

    def _found(self, host: str, targets: Sequence[tuple[int, object]]) -> None:
        texts = [str(address[0]) for _, address in targets if isinstance(address, tuple)]
        if texts:
            self._known[host] = tuple(dict.fromkeys(text for text in texts if "%" not in text))
