"""What the operator may ask of a balancer, and tell it: the commands of the admin socket, apart from the socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farmsyncd.core.eligibility import Order
from farmsyncd.errors import BadInput
from farmsyncd.lb.deciding import Deciding
from farmsyncd.lb.web import Figures

Json = dict[str, Any]
MANY = 100
"""So many sources are told when nobody says how many."""
_MOST = 100_000
ORDERS: Mapping[str, Order] = {"drain": Order.DRAIN, "ready": Order.READY, "maint": Order.MAINT}


class Steering:
    """Answers commands, each a list of words::

    status            the balancer in numbers, and its nodes
    nodes             the nodes alone
    sources [COUNT]   the sources that came last, and where they are
    explain SOURCE    where a source's next connection goes, and why
    drain NODE        it keeps its sources, and gets no new ones
    maint NODE        it gets nothing
    ready NODE        as usual again
    """

    def __init__(self, mind: Deciding, figures: Figures) -> None:
        self._mind = mind
        self._figures = figures

    def answer(self, words: Sequence[str]) -> Json:
        """What to answer. BadInput when it is no command, or about a node or a source that cannot be."""
        match list(words):
            case ["status"]:
                return dict(self._figures.status())
            case ["nodes"]:
                return {"nodes": self._figures.status()["nodes"]}
            case ["sources"]:
                return self._sources(str(MANY))
            case ["sources", count]:
                return self._sources(count)
            case ["explain", source]:
                return self._explain(source)
            case [verb, name] if verb in ORDERS:
                return self._order(name, ORDERS[verb])
        raise BadInput(
            "expected one of: status, nodes, sources [COUNT], explain SOURCE, drain NODE, ready NODE, maint NODE; "
            f"and found {' '.join(words)[:80]!r}"
        )

    def _sources(self, count: str) -> Json:
        if not (count.isascii() and count.isdecimal() and 0 < int(count) <= _MOST):
            raise BadInput(f"expected how many sources to tell, 1 to {_MOST}, and found {count[:20]!r}")
        return {"known": len(self._mind.affinity), "sources": self._mind.explainer.sources(int(count))}

    def _explain(self, source: str) -> Json:
        try:
            key = self._mind.source_of(source.partition("/")[0])
        except ValueError:
            raise BadInput(f"expected a source's IP address, and found {source[:80]!r}") from None
        return self._mind.explainer.explain(key)

    def _order(self, name: str, order: Order) -> Json:
        farm = self._mind.farm
        if name not in farm.nodes:
            known = ", ".join(sorted(farm.nodes)) or "none"
            raise BadInput(f"expected a node of this farm, and found {name[:80]!r}; the nodes are: {known}")
        before = farm.nodes[name].state
        self._mind.dispatcher.command(name, order)
        node = farm.nodes[name]
        return {
            "node": name,
            "order": order.value,
            "before": before.value,
            "state": node.state.value,
            "reason": node.reason,
            "connections": node.connections,
            "serving": None if farm.serving is None else farm.serving.value,
        }


Answering = Callable[[Sequence[str]], Any]
"""What :meth:`Steering.answer` is: it may give a Deferred instead."""
