"""What the data server shows over HTTP: its status, its numbers, and whether it is of use."""

from __future__ import annotations

from farmsyncd.data import metrics
from farmsyncd.data.wiring import Parts
from farmsyncd.edges.httpside import HttpSide


def http_side(parts: Parts) -> HttpSide:
    """The HTTP side of a data server."""
    return HttpSide(parts.desk.status, lambda: _metrics(parts), lambda: (True, "serving"))


def _metrics(parts: Parts) -> str:
    courses = sorted(parts.keeper.courses.values(), key=lambda one: one.dataset)
    nodes = list(parts.roster.records())
    states = sorted({(one.dataset, one.state) for one, _connected in nodes})
    return metrics.text(
        [
            ("farmsync_data_links", "gauge", "Connections of all kinds.", [({}, len(parts.links.links))]),
            ("farmsync_data_nodes_connected", "gauge", "Nodes that are connected.", [({}, parts.roster.connected)]),
            (
                "farmsync_data_node_states",
                "gauge",
                "Connected nodes in each state.",
                [
                    (
                        {"dataset": dataset, "state": state},
                        sum(here and (one.dataset, one.state) == (dataset, state) for one, here in nodes),
                    )
                    for dataset, state in states
                ],
            ),
            (
                "farmsync_data_active_cycle",
                "gauge",
                "The active cycle of each dataset.",
                [({"dataset": one.dataset}, one.active.number) for one in courses if one.active],
            ),
            (
                "farmsync_data_next_activation_seconds",
                "gauge",
                "Farm time of each dataset's next activation.",
                [({"dataset": one.dataset}, one.pending.activates_at_ns / 1e9) for one in courses if one.pending],
            ),
            ("farmsync_data_flips_total", "counter", "Flips that nodes have reported.", [({}, parts.flips.count)]),
            ("farmsync_data_sent_bytes_total", "counter", "Bulk sent to nodes.", [({}, parts.transfers.sent_bytes)]),
            ("farmsync_data_transfers", "gauge", "Transfers to nodes at this moment.", [({}, parts.transfers.running)]),
            ("farmsync_data_transfers_waiting", "gauge", "Transfers that wait.", [({}, parts.transfers.waiting)]),
            ("farmsync_data_chunks", "gauge", "Chunks in the store.", [({}, len(parts.library.store))]),
            ("farmsync_data_versions", "gauge", "Versions that are kept.", [({}, len(parts.library.versions))]),
        ]
    )
