"""What a balancer's HTTP side shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmsyncd.core.affinity import Affinity
from farmsyncd.core.eligibility import State, those
from farmsyncd.core.proxyheader import Fault
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.farm import Node


class Figures(Collector):
    """The balancer in numbers and words. ``data_server`` tells whether it is there; None when none is asked.

    ``refusals`` are the connections that did not begin with the PROXY header that they had to begin with.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        affinity: Affinity,
        clients: Sized,
        data_server: Callable[[], bool] | None,
        now_ns: Callable[[], int],
        refusals: Mapping[Fault, int] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._refusals = dict.fromkeys(Fault, 0) if refusals is None else refusals
        self._affinity = affinity
        self._clients = clients
        self._data_server = data_server
        self._now_ns = now_ns
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def status(self) -> dict[str, object]:
        """What ``/status`` shows."""
        dispatcher = self._dispatcher
        good, reason = self.ready()
        return {
            "ready": good,
            "reason": reason,
            "clients": len(self._clients),
            "sources": len(self._affinity),
            "sources_evicted_total": self._affinity.evicted,
            "sources_moved_total": dispatcher.seating.moved,
            "guests_total": dispatcher.seating.guests,
            "waiting": dispatcher.waiting,
            "waited_total": dispatcher.waited,
            "timed_out_total": dispatcher.timed_out,
            "turned_away_total": dispatcher.turned_away,
            "proxy_refused_total": {fault.value: count for fault, count in self._refusals.items()},
            "data_server": None if self._data_server is None else self._data_server(),
            "nodes": [self._node(node) for node in self._nodes()],
        }

    def _node(self, node: Node) -> dict[str, object]:
        return {
            "name": node.name,
            "address": str(node.address),
            "state": node.state.value,
            "reason": node.reason,
            "order": node.order.value,
            "takes_new": node.takes,
            "connections": node.connections,
            "limit": None if node.limit == float("inf") else int(node.limit),
            "weight": round(node.weight, 6),
            "whole_weight": node.whole_weight,
            "sources": self._affinity.sources_of(node.name),
            "connections_total": node.total,
            "failures_total": node.failures,
        }

    def metrics(self) -> str:
        """What ``/metrics`` shows."""
        return generate_latest(self._registry).decode()

    def ready(self) -> tuple[bool, str]:
        """Whether a client would find a node that is up."""
        nodes = self._nodes()
        serving = self._dispatcher.farm.serving
        if not nodes:
            return False, "no node is known yet"
        if serving is None:
            return False, f"all {len(nodes)} nodes are in maintenance" if nodes[
                1:
            ] else "the only node is in maintenance"
        count = sum(node.takes for node in nodes)
        if serving is State.DOWN:
            return False, f"no node is up; clients are sent to {those(count, serving)}, in case it is not"
        return True, f"{count} of {len(nodes)} nodes take new sources" + (
            "" if serving is State.READY else f", although they are {serving.value}: none is ready"
        )

    def collect(self) -> list[Metric]:
        """The samples, for prometheus_client."""
        nodes, dispatcher = self._nodes(), self._dispatcher
        counted: list[tuple[str, str, Callable[[Node], float]]] = [
            ("connections", "Connections that were given to the node", lambda node: node.total),
            ("failures", "Connections that the node did not take", lambda node: node.failures),
        ]
        measured: list[tuple[str, str, Callable[[Node], float]]] = [
            ("node_ready", "Whether the node is ready", lambda node: node.state is State.READY),
            ("node_takes_new", "Whether the node is given new sources", lambda node: node.takes),
            ("node_connections", "Open connections", lambda node: node.connections),
            ("node_sources", "Sources that are remembered", lambda node: self._affinity.sources_of(node.name)),
            ("node_weight", "The node's weight at this moment", lambda node: node.weight),
        ]
        return [
            *(
                _per_node(GaugeMetricFamily(_named(name), text, labels=["node"]), nodes, of)
                for name, text, of in measured
            ),
            *(
                _per_node(CounterMetricFamily(_named(name), text, labels=["node"]), nodes, of)
                for name, text, of in counted
            ),
            _states(nodes),
            self._refused(),
            *(
                GaugeMetricFamily(_named(name), text, value)
                for name, text, value in (
                    ("clients", "Clients that are connected", len(self._clients)),
                    ("sources", "Sources that are remembered", len(self._affinity)),
                    ("waiting", "Connections that wait for a node", dispatcher.waiting),
                    ("ready", "Whether a client would find a node that is up", self.ready()[0]),
                )
            ),
            *(
                CounterMetricFamily(_named(name), text, value)
                for name, text, value in (
                    ("waited", "Connections that had to wait for a node", dispatcher.waited),
                    ("timed_out", "Connections that waited too long", dispatcher.timed_out),
                    ("turned_away", "Connections that found the queue full", dispatcher.turned_away),
                    ("sources_moved", "Sources that went to another node than before", dispatcher.seating.moved),
                    ("sources_evicted", "Sources that were forgotten to make room", self._affinity.evicted),
                    ("guests", "Connections beyond their source's share", dispatcher.seating.guests),
                )
            ),
        ]

    def _refused(self) -> Metric:
        family = CounterMetricFamily(
            _named("proxy_refused"), "Connections that were reset for what they began with", labels=["reason"]
        )
        for fault, count in self._refusals.items():
            family.add_metric([fault.value], count)
        return family

    def _nodes(self) -> list[Node]:
        """All nodes by name, as they are now."""
        self._dispatcher.farm.freshen(self._now_ns())
        return [node for _name, node in sorted(self._dispatcher.farm.nodes.items())]


def _named(name: str) -> str:
    return f"farmsync_lb_{name}"


def _per_node(
    family: GaugeMetricFamily | CounterMetricFamily, nodes: Iterable[Node], of: Callable[[Node], float]
) -> Metric:
    for node in nodes:
        family.add_metric([node.name], of(node))
    return family


def _states(nodes: Iterable[Node]) -> Metric:
    """One sample for each state that a node can be in: 1 for the one that it is in."""
    family = GaugeMetricFamily(_named("node_state"), "The node's state", labels=["node", "state"])
    for node in nodes:
        for state in State:
            family.add_metric([node.name, state.value], node.state is state)
    return family
