"""What ``/status`` and ``/metrics`` say of the application and its sessions."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from farmsyncd.node.application.service import ApplicationService

_SESSION_COUNTERS = {
    "hits": "Sessions that were in this node's memory, and known to be up to date",
    "misses": "Sessions that were not in memory, and read from the database",
    "revalidations": "Sessions that were in memory, and perhaps old: the database was asked, and sent what was newer",
    "conflicts": "Changes that were refused, since another request had changed the same key",
    "merges": "Changes that were brought together with those of another request",
}
_SESSION_GAUGES = {"entries": "Sessions in this node's memory", "bytes": "What they take"}


def status(application: ApplicationService) -> dict[str, object]:
    """The application's part of ``/status``."""
    counts = application.counts
    told: dict[str, object] = {
        "requests": counts.requests,
        "in_work": application.in_work,
        "refused": counts.refused,
        "failed": counts.failed,
        "sessions": None,
    }
    if application.opened is not None:
        statistics = application.opened.sessions.statistics()
        told["sessions"] = {
            "unavailable": application.opened.why_not,
            **{name: getattr(statistics, name) for name in (*_SESSION_COUNTERS, *_SESSION_GAUGES)},
        }
    return told


def metrics(application: ApplicationService) -> Iterable[Metric]:
    """The same for Prometheus."""
    counts = application.counts
    yield CounterMetricFamily("farmsync_node_requests", "Requests to the application", value=counts.requests)
    yield CounterMetricFamily(
        "farmsync_node_requests_refused", "Those answered with 503, since the queue was full", value=counts.refused
    )
    yield CounterMetricFamily(
        "farmsync_node_requests_failed", "Those at which the application failed", value=counts.failed
    )
    yield GaugeMetricFamily(
        "farmsync_node_requests_in_work", "Those in work or waiting for a thread", value=application.in_work
    )
    if application.opened is None:
        return
    yield GaugeMetricFamily(
        "farmsync_node_session_database_available",
        "0 while the sessions' database is away, 1 otherwise",
        value=application.opened.why_not is None,
    )
    statistics = application.opened.sessions.statistics()
    for name, text in _SESSION_COUNTERS.items():
        yield CounterMetricFamily(f"farmsync_node_session_{name}", text, value=getattr(statistics, name))
    for name, text in _SESSION_GAUGES.items():
        yield GaugeMetricFamily(f"farmsync_node_session_{name}", text, value=getattr(statistics, name))
