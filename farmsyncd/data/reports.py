"""What STATUS, HISTORY and REPORT answer, as plain values for JSON. All times are farm time in nanoseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from farmsyncd.core.cycle import Course, Cycle
from farmsyncd.edges.catalog import CycleRecord, FlipRecord, NodeRecord, PinRecord

Json = dict[str, object]


def status(
    now_ns: int,
    epoch: str,
    courses: Iterable[Course],
    nodes: Iterable[tuple[NodeRecord, bool]],
    pins: Sequence[PinRecord],
    faults: Mapping[str, str],
) -> Json:
    """The farm as the data server sees it; ``nodes`` come with whether they are connected.

    ``faults`` says why the sources of datasets cannot be read.
    """
    return {
        "farm_time_ns": now_ns,
        "epoch": epoch,
        "datasets": {one.dataset: _course(one, now_ns) for one in sorted(courses, key=lambda one: one.dataset)},
        "nodes": [_node(record, connected, pins) for record, connected in nodes],
        "sources": {dataset: {"detail": fault} for dataset, fault in sorted(faults.items())},
    }


def _course(course: Course, now_ns: int) -> Json:
    active, pending = course.active, course.pending
    return {
        "active": None if active is None else {**_cycle(active), "activated_at_ns": active.activates_at_ns},
        "next": None
        if pending is None
        else {
            **_cycle(pending),
            "activates_at_ns": pending.activates_at_ns,
            "freezes_at_ns": pending.freezes_at_ns,
        },
        "phase": course.phase(now_ns).value,
        "revision": course.revision,
    }


def _cycle(cycle: Cycle) -> Json:
    return {"cycle": cycle.number, "version": cycle.version}


def _node(record: NodeRecord, connected: bool, pins: Sequence[PinRecord]) -> Json:
    return {
        "name": record.name,
        "state": record.state,
        "dataset": record.dataset,
        "active": record.version,
        "staged": record.staged_version,
        "offset_ns": record.offset_ns,
        "error_bound_ns": record.error_bound_ns,
        "last_seen_ns": record.last_seen_ns,
        "connected": connected,
        "active_cycle": record.cycle,
        "staged_cycle": record.staged_cycle,
        "detail": record.detail,
        "serve": record.serve,
        "pins": [one.version for one in pins if (one.node, one.dataset) == (record.name, record.dataset)],
    }


def history(dataset: str, cycles: Iterable[CycleRecord], to_utc_ns: Callable[[int], int]) -> Json:
    """The cycles of a dataset, newest first, each with the wall clock's time of its activation."""
    return {
        "dataset": dataset,
        "cycles": [
            {
                "cycle": one.number,
                "utc_ns": to_utc_ns(one.activates_at_ns),
                **{key: value for key, value in attrs.asdict(one).items() if key not in {"dataset", "number"}},
            }
            for one in cycles
        ],
    }


def report(
    cycle: CycleRecord, flips: Sequence[FlipRecord], expected: Iterable[str], to_utc_ns: Callable[[int], int]
) -> Json:
    """How far apart the farm's nodes were when they swapped one cycle.

    ``spread_ns`` is from the first to the last, as the nodes reckon the time, each within its error bound; ``missing``
    are the nodes that should have swapped and have not said so.
    """
    times = [one.activated_at_ns for one in flips]
    return {
        "dataset": cycle.dataset,
        "cycle": cycle.number,
        "version": cycle.version,
        "activates_at_ns": cycle.activates_at_ns,
        "spread_ns": max(times) - min(times) if times else 0,
        "nodes": [
            {
                "name": one.node,
                "activated_at_ns": one.activated_at_ns,
                "lateness_ns": one.activated_at_ns - cycle.activates_at_ns,
                "error_bound_ns": one.error_bound_ns,
                "detail": one.detail,
            }
            for one in flips
        ],
        "missing": sorted(set(expected) - {one.node for one in flips}),
        "utc_ns": to_utc_ns(cycle.activates_at_ns),
        "outcome": cycle.outcome,
        "origin": cycle.origin,
        "rolled_over_at_ns": cycle.rolled_over_at_ns,
        "rolled_over_by": cycle.rolled_over_by,
    }
