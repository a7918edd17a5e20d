"""Nodes' reports of their swaps, durable before they are acknowledged."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from farmsyncd.core.messages.schedule import Flipped
from farmsyncd.data.batch import Batch
from farmsyncd.data.roster import detail_of
from farmsyncd.edges.catalog import Catalog, CycleRecord, FlipRecord
from farmsyncd.edges.workthread import WorkThread

Gathered = tuple[CycleRecord, list[FlipRecord], list[str]]


class FlipBook:
    """Takes flips down, many in one write. ``count`` is how many since the start."""

    def __init__(self, catalog: Catalog, thread: WorkThread) -> None:
        self._catalog = catalog
        self._thread = thread
        self._batch: Batch[FlipRecord] = Batch(self._write)
        self.count = 0

    def note(self, node: str, flipped: Flipped) -> Deferred[None]:
        """Keep a node's report; fires when it is durable. A second report of a node for one cycle changes nothing.

        Nor does one of a cycle that there is not: of a catalog that was lost, or made up.
        """
        record = FlipRecord(
            *(flipped.dataset, flipped.cycle, node, flipped.version),
            *(flipped.activated_at, flipped.error_bound, detail_of(flipped)),
        )
        return self._batch.add(record)

    def _write(self, records: list[FlipRecord]) -> Deferred[None]:
        def written(result: None) -> None:
            self.count += len(records)
            return result

        return self._thread.run(self._catalog.note_flips, records).addCallback(written)

    def gather(self, dataset: str, cycle: int | None) -> Deferred[Gathered | None]:
        """The reports of a cycle (None: the newest that was activated), and who was expected; None: no such cycle."""
        return self._thread.run(self._gather, dataset, cycle)

    def _gather(self, dataset: str, cycle: int | None) -> Gathered | None:
        if cycle is None:
            course = self._catalog.course(dataset)
            if course is None or course.active is None:
                return None
            cycle = course.active.number
        record = self._catalog.cycle(dataset, cycle)
        if record is None:
            return None
        return record, self._catalog.flips(dataset, cycle), self._catalog.expected(dataset, cycle)
