"""What is told of swaps once they are done: a line in the log, the hooks, and the report to the data server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.messages.schedule import Flipped
from farmsyncd.core.standing import Turn
from farmsyncd.node.diary import Diary
from farmsyncd.node.hooks import Flip
from farmsyncd.node.record import FlipNote
from farmsyncd.node.surroundings import Surroundings

LONGEST_DETAIL = 2000
_CUT_SHORT = "the node ended before its hooks had"


@attrs.define(eq=False)
class _Swap:
    """A swap that is to be reported: when it was done by the node's clock; ``detail`` is None while its hooks run.

    ``noted`` once it is in the record, where a node that ends before the hooks have finds it at its next start.
    """

    turn: Turn
    local_ns: int
    detail: str | None = None
    noted: bool = False


class Swaps:
    """The swaps of one dataset. ``ended`` is called when a swap's hooks are done, ``path`` is a version's directory."""

    log = Logger()

    def __init__(
        self, dataset: str, diary: Diary, around: Surroundings, path: Callable[[str], Path], ended: Callable[[], None]
    ) -> None:
        self.lateness_ns: int | None = None  # of the last swap in this process
        self._dataset = dataset
        self._diary = diary
        self._around = around
        self._path = path
        self._ended = ended
        self._open: list[_Swap] = []
        self._foreseen = diary.record.pending.cycle if diary.record.pending is not None else 0

    def foresee(self, cycle: int) -> None:
        """``cycle`` was heard of before its time: this node takes part in it from the beginning."""
        self._foreseen = max(self._foreseen, cycle)

    def done(self, turn: Turn, local_ns: int) -> None:
        """``turn`` was swapped to at ``local_ns``; called before the diary knows of it."""
        estimate = self._around.estimate()
        self.lateness_ns = None if estimate is None else estimate.farm_ns(local_ns) - turn.at_ns
        late_ms = "?" if self.lateness_ns is None else round(self.lateness_ns / 1e6, 3)
        self.log.info(
            "{dataset}: cycle {cycle}, version {version}, is active, {late_ms} ms after its time",
            dataset=self._dataset, cycle=turn.cycle, version=turn.version, late_ms=late_ms,
        )  # fmt: skip
        was = self._diary.record.active
        if (was is None and turn.cycle > self._foreseen) or (was is not None and turn.cycle <= was.cycle):
            return  # a first copy of what was active already, or a damaged version copied again: no flip of the farm's
        swap = _Swap(turn, local_ns)
        self._open.append(swap)
        if not self._around.hooks:
            swap.detail = ""
            return
        told = Flip(self._dataset, turn.version, turn.cycle, str(self._path(turn.version)))
        running = ensureDeferred(self._around.hooks.run(told))
        running.addErrback(self._fault).addCallback(partial(self._hooks_ended, swap))

    def _fault(self, failure: Failure) -> str:
        self.log.failure("{dataset}: running the hooks met a fault of ours", failure, dataset=self._dataset)
        return f"the hooks could not be run: {failure.getErrorMessage()}"

    def _hooks_ended(self, swap: _Swap, detail: str) -> None:
        swap.detail = detail
        self._ended()

    def reckon(self) -> None:
        """Write notes for the data server of all swaps of which farm time is known, and what is news of their hooks."""
        estimate = self._around.estimate()
        if estimate is None:
            return
        news = [swap for swap in self._open if swap.detail is not None or not swap.noted]
        self._open = [swap for swap in self._open if swap.detail is None]
        if not news:
            return
        record = self._diary.record
        for swap in news:
            swap.noted = True
            note = FlipNote(
                cycle=swap.turn.cycle,
                version=swap.turn.version,
                activated_at_ns=estimate.farm_ns(swap.local_ns),
                error_bound_ns=estimate.bound_at(swap.local_ns),
                detail=_CUT_SHORT if swap.detail is None else swap.detail,
            )
            record = record.noted(swap.turn.cycle).with_flips([note])
        self._diary.change(record)

    def flips(self) -> list[Flipped]:
        """The reports that the data server has not noted yet; a swap whose hooks run is told when they have ended."""
        running = {swap.turn.cycle for swap in self._open}
        return [
            Flipped(
                dataset=self._dataset,
                cycle=note.cycle,
                version=note.version,
                activated_at=note.activated_at_ns,
                error_bound=note.error_bound_ns,
                detail=note.detail.encode("utf-8", "replace")[:LONGEST_DETAIL],
            )
            for note in self._diary.record.flips
            if note.cycle not in running
        ]
