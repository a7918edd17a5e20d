"""What a balancer's HTTP side shows."""

from __future__ import annotations

from collections.abc import Callable, Sized

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmsyncd.lb.farm import Farm, NodeState


class Figures(Collector):
    """The balancer in numbers and words. ``data_server`` tells whether it is there; None when none is asked."""

    def __init__(self, farm: Farm, clients: Sized, data_server: Callable[[], bool] | None) -> None:
        self._farm = farm
        self._clients = clients
        self._data_server = data_server
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def status(self) -> dict[str, object]:
        """What ``/status`` shows."""
        return {
            "clients": len(self._clients),
            "sources": self._farm.sources,
            "data_server": None if self._data_server is None else self._data_server(),
            "nodes": [
                {
                    "name": name,
                    "address": f"{node.address.host}:{node.address.port}",
                    "state": self._farm.state(node).value,
                    "connections": node.connections,
                    "connections_total": node.total,
                    "failures_total": node.failures,
                }
                for name, node in sorted(self._farm.nodes.items())
            ],
        }

    def metrics(self) -> str:
        """What ``/metrics`` shows."""
        return generate_latest(self._registry).decode()

    def ready(self) -> tuple[bool, str]:
        """Whether a client would find a node."""
        states = [self._farm.state(node) for node in self._farm.nodes.values()]
        good = sum(state is not NodeState.DOWN for state in states)
        if not states:
            return False, "no node is known yet"
        return good > 0, f"{good} of {len(states)} nodes take connections"

    def collect(self) -> list[Metric]:
        """The samples, for prometheus_client."""
        up = GaugeMetricFamily("farmsync_lb_node_ready", "Whether the node is given new sources", labels=["node"])
        now = GaugeMetricFamily("farmsync_lb_node_connections", "Open connections", labels=["node"])
        total = CounterMetricFamily(
            "farmsync_lb_connections", "Connections that were given to the node", labels=["node"]
        )
        failed = CounterMetricFamily("farmsync_lb_failures", "Connections that the node did not take", labels=["node"])
        for name, node in sorted(self._farm.nodes.items()):
            up.add_metric([name], self._farm.state(node) is NodeState.READY)
            now.add_metric([name], node.connections)
            total.add_metric([name], node.total)
            failed.add_metric([name], node.failures)
        clients = GaugeMetricFamily("farmsync_lb_clients", "Clients that are connected", len(self._clients))
        sources = GaugeMetricFamily("farmsync_lb_sources", "Sources that are remembered", self._farm.sources)
        return [up, now, total, failed, clients, sources]
