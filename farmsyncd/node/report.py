"""What a node says of itself to people and to monitoring: ``/status``, ``/metrics`` and ``/ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farmsyncd.core.messages.schedule import NODE_STATES
from farmsyncd.core.standing import Turn
from farmsyncd.node.application import counting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from farmsyncd.core.farmtime import Estimate
    from farmsyncd.node.application.service import ApplicationService
    from farmsyncd.node.node import Node
    from farmsyncd.node.replica import Replica
    from farmsyncd.node.staging.stager import Brought
    from farmsyncd.node.unopened import Unopened


def status(node: Node, application: ApplicationService | None = None) -> dict[str, object]:
    """The node, its datasets and its application; times are farm time in nanoseconds."""
    now_ns = node.clock.now_ns()
    estimate = node.timekeeper.estimate()
    return {
        "name": node.config.name,
        "instance": node.instance,
        "connected": node.follower.connected,
        "farm_time_ns": None if estimate is None else estimate.farm_ns(now_ns),
        "offset_ns": None if estimate is None else estimate.offset_at(now_ns),
        "error_bound_ns": None if estimate is None else estimate.bound_at(now_ns),
        "rate_ppb": None if estimate is None else estimate.rate_ppb,
        "datasets": {
            **{name: _dataset(replica) for name, replica in node.followed()},
            **{name: _unopened(one) for name, one in node.unopened.items()},
        },
        "staged_versions": node.stager.totals.versions,
        "staged_bytes": node.stager.totals.bytes_received,
        "last_staging": _last_staging(node.stager.totals.last, estimate),
        "application": None if application is None else counting.status(application),
    }


def _last_staging(last: Brought | None, estimate: Estimate | None) -> dict[str, object] | None:
    """What bringing the last version in took: from asking for it until it was complete and durable."""
    if last is None:
        return None
    return {
        "dataset": last.dataset,
        "version": last.version,
        "began_ns": None if estimate is None else estimate.farm_ns(last.began_ns),
        "ended_ns": None if estimate is None else estimate.farm_ns(last.ended_ns),
        "bytes": last.bytes_received,
    }


def _dataset(replica: Replica) -> dict[str, object]:
    coming = replica.known.next
    return {
        "state": replica.state(),
        "detail": replica.detail(),
        "active": _turn(replica.pointing.current()),
        "next": None if coming is None else {**(_turn(coming) or {}), "activates_at_ns": coming.at_ns},
        "staged": [version for version in sorted(replica.shelf.versions) if coming and version == coming.version],
        "versions": sorted(replica.shelf.versions),
        "pinned": sorted(replica.record.pins),
        "flips_to_report": len(replica.record.flips),
    }


def _unopened(one: Unopened) -> dict[str, object]:
    """The same of a dataset that cannot be followed."""
    return {
        "state": one.state,
        "detail": one.fault,
        "active": None,
        "next": None,
        "staged": [],
        "versions": [],
        "pinned": [],
        "flips_to_report": 0,
    }


def _turn(turn: Turn | None) -> dict[str, object] | None:
    return None if turn is None else {"cycle": turn.cycle, "version": turn.version}


def ready(node: Node) -> tuple[bool, str]:
    """Whether the node serves all that there is to serve, and what is missing."""
    replicas = dict(node.followed())
    served = {name for name, replica in replicas.items() if replica.pointing.current() is not None}
    # What has never been activated anywhere is no reason to keep a node out of the farm.
    future = {
        name for name, replica in replicas.items() if replica.known.revision >= 0 and replica.known.active is None
    }
    missing = sorted({*node.config.dataset, *replicas, *node.unopened} - served - (future if served else set()))
    if missing:
        return False, f"no active version of {', '.join(missing)}"
    if not replicas:
        return False, "no dataset is followed yet"
    return True, "ready"


def metrics(node: Node, application: ApplicationService | None = None) -> str:
    """The same in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Metrics(node, application))
    return generate_latest(registry).decode()


class _Metrics(Collector):
    def __init__(self, node: Node, application: ApplicationService | None) -> None:
        self._node = node
        self._application = application

    def collect(self) -> Iterable[Metric]:
        yield from self._clock()
        yield from self._datasets()
        totals = self._node.stager.totals
        yield CounterMetricFamily("farmsync_node_staged_versions", "Versions brought in", value=totals.versions)
        yield CounterMetricFamily("farmsync_node_staged_bytes", "Bytes received to stage", value=totals.bytes_received)
        if self._application is not None:
            yield from counting.metrics(self._application)

    def _clock(self) -> Iterable[Metric]:
        connected = float(self._node.follower.connected)
        yield GaugeMetricFamily("farmsync_node_connected", "Whether the data server is there", value=connected)
        estimate = self._node.timekeeper.estimate()
        if estimate is None:
            return
        now_ns = self._node.clock.now_ns()
        offset, bound = estimate.offset_at(now_ns) / 1e9, estimate.bound_at(now_ns) / 1e9
        yield GaugeMetricFamily("farmsync_node_clock_offset_seconds", "Farm time minus the node's clock", value=offset)
        yield GaugeMetricFamily(
            "farmsync_node_clock_error_bound_seconds", "Hard bound of the offset's error", value=bound
        )

    def _datasets(self) -> Iterable[Metric]:
        state = GaugeMetricFamily("farmsync_node_state", "1 for the state a dataset is in", labels=["dataset", "state"])
        cycle = GaugeMetricFamily("farmsync_node_active_cycle", "The cycle that is served", labels=["dataset"])
        lateness = GaugeMetricFamily(
            "farmsync_node_last_flip_lateness_seconds", "From a flip's time until it was done", labels=["dataset"]
        )
        replicas = self._node.followed()
        states = {**{name: replica.state() for name, replica in replicas},
                  **{name: one.state for name, one in self._node.unopened.items()}}  # fmt: skip
        for name, word in states.items():
            for one in NODE_STATES:
                state.add_metric([name, one], float(word == one))
        for name, replica in replicas:
            turn = replica.pointing.current()
            if turn is not None:
                cycle.add_metric([name], turn.cycle)
            if replica.lateness_ns is not None:
                lateness.add_metric([name], replica.lateness_ns / 1e9)
        yield from (state, cycle, lateness)
