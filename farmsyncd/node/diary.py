"""The record of one dataset as it changes: in memory at once, on the disk a moment later."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.node.record import Record, RecordFile, Served
from farmsyncd.node.worker import Worker


class Diary:
    """Keeps a record. A disk that refuses is logged and stops nothing: the next change is written whole again."""

    log = Logger()

    def __init__(self, dataset: str, record: Record, file: RecordFile, cache: CacheDir, disk: Worker) -> None:
        self.record = record
        self._dataset = dataset
        self._file = file
        self._cache = cache
        self._disk = disk
        self._announced = record.pending.turn() if record.pending is not None else None
        self._announcing = False

    def change(self, record: Record) -> Deferred[None]:
        """The record is this from now on; fires when that is durable, or was refused."""
        self.record = record
        return self._disk.run(self._file.save, record).addErrback(self._failed)

    def announces(self, turn: Turn, then: Callable[[], None]) -> bool:
        """Whether the disk knows that ``turn`` comes; if not it soon will, and ``then`` is called."""
        if self._announced == turn:
            return True
        if not self._announcing:
            self._announcing = True

            def announced(_: None) -> None:
                # Even when the disk refused: the flip must not depend on it.
                self._announcing = False
                self._announced = turn
                then()

            self.change(msgspec.structs.replace(self.record, pending=Served.of(turn))).addCallback(announced)
        return False

    def swapped(self, turn: Turn) -> None:
        """``turn`` is the one that is served: make the link durable, and then what it means."""
        self._disk.run(self._cache.settle).addErrback(self._failed)
        self.change(self.record.activated(turn))

    def saw(self, cycle: int) -> None:
        """``cycle`` is, or was, active in the farm."""
        if cycle > self.record.highest:
            self.change(msgspec.structs.replace(self.record, highest=cycle))

    def pin(self, versions: tuple[str, ...]) -> bool:
        """These versions are pinned and no others; whether that is news."""
        if versions == self.record.pins:
            return False
        self.change(msgspec.structs.replace(self.record, pins=versions))
        return True

    def noted(self, cycle: int) -> None:
        """The data server has taken down the flip of ``cycle``."""
        if any(flip.cycle == cycle for flip in self.record.flips):
            self.change(self.record.noted(cycle))

    def _failed(self, failure: Failure) -> None:
        self.log.error(
            "{dataset}: the record of this dataset cannot be written: {error}",
            dataset=self._dataset, error=failure.getErrorMessage(),
        )  # fmt: skip
