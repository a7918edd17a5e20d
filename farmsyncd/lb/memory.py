"""What outlives the balancer's process: its sources with their nodes, as a book that is written while they come.

What is new is appended many times a second, so that a crash costs next to nothing. That a source came again is written
now and then, which is enough to know whom to forget. When most of the book is out of date it is written anew, a little
at a time. All writing is done in a thread; only the last words, at the end, are waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.affinity import Affinity, Stay
from farmsyncd.core.affinity import Record as Entry
from farmsyncd.core.sourcebook import Record, Writer
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.lb.bookfile import BookFile, Reading

KEPT = "it was there before the balancer was started"
TAKEN_OVER = "it was there with the balancer before this one"
TICK_S = 0.1
_SLICE = 2000
_LOOKS = 20_000
_TOUCHES = 16
_SMALL = 10_000
_PAUSE_TICKS = 100


@attrs.frozen
class Clocks:
    """The table's clock, which does not go back, and the wall clock, which means the same after a reboot."""

    now_ns: Callable[[], int]
    wall_ns: Callable[[], int]

    def to_wall(self, entries: Iterable[Entry]) -> Iterator[Record]:
        """Entries of the table as records of the book."""
        ahead_ns = self.wall_ns() - self.now_ns()
        return ((source, node, used_ns + ahead_ns) for source, node, used_ns in entries)

    def from_wall(self, records: Iterable[Record]) -> Iterator[Entry]:
        """And back."""
        ahead_ns = self.wall_ns() - self.now_ns()
        return ((source, node, used_ns - ahead_ns) for source, node, used_ns in records)


class Memory(Service):
    """Keeps ``affinity`` in a book at ``path``: read by :meth:`load`, written while the service runs.

    ``lifetime_ns`` is after how long the table forgets a source.
    """

    _log = Logger()

    def __init__(self, path: Path, affinity: Affinity, lifetime_ns: int, clocks: Clocks, reactor: Any) -> None:
        self._path = path
        self._affinity = affinity
        self._clocks = clocks
        self._reactor = reactor
        self._touch_ns = lifetime_ns // _TOUCHES
        self._reading = Reading(path)
        self._book = BookFile(path)
        self._writer = Writer()
        self._thread = WorkThread("book", reactor)
        self._call: IDelayedCall | None = None
        self._noted_ns = self._touched_ns = self._again_ns = clocks.now_ns()
        self._written = 0
        self._anew: _Anew | None = None
        self._looked_at: Iterator[Stay] = iter(())
        self._failed_ticks = 0
        self._troubled = False

    def load(self) -> int:
        """Read what is there; how many sources were found that were not known. LocalError when it is unreadable.

        Another process may still be writing: :meth:`catch_up` reads the rest.
        """
        records = self._reading.more()
        self._written += len(records)
        return self._affinity.load(self._clocks.from_wall(records), self._clocks.now_ns(), KEPT)

    def catch_up(self) -> None:
        """Read what has come since :meth:`load`. LocalError when it is unreadable."""
        now_ns = self._clocks.now_ns()
        records = self._reading.more()
        self._written += len(records)
        for source, node, _ in records:
            self._affinity.release(self._affinity.hold(source, node, now_ns, TAKEN_OVER), now_ns)

    def startService(self) -> None:  # noqa: N802 - IService
        """Continue the book."""
        super().startService()  # type: ignore[no-untyped-call]
        self._noted_ns = self._touched_ns = self._clocks.now_ns()
        self._writer = Writer(self._reading.nodes)
        self._do(self._book.go_on, self._reading.good)
        self._reading.close()
        self._tick()

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Write the last words; fires when the disk has them."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._troubled:
            self._begin_anew()
            while self._anew is not None:
                self._write_anew()
        else:
            self._anew = None
            self._note()
            self._touch()
            self._look(self._looked_at)
            self._do(self._book.sync)
        self._do(self._book.drop_draft)
        self._do(self._book.close)
        return self._thread.stop()

    def _tick(self) -> None:
        self._call = self._reactor.callLater(TICK_S, self._tick)
        if self._failed_ticks:
            self._failed_ticks -= 1
            if not self._failed_ticks:
                self._begin_anew()
            return
        self._note()
        if self._clocks.now_ns() - self._touched_ns >= self._touch_ns:
            self._touch()
            self._do(self._book.sync)
        self._look(islice(self._looked_at, _LOOKS))
        if self._anew is not None:
            self._write_anew()
        elif self._written > 2 * len(self._affinity) + _SMALL:
            self._begin_anew()

    def _note(self) -> None:
        """Append the sources that have come, or gone to other nodes."""
        since_ns, self._noted_ns = self._noted_ns, self._clocks.now_ns()
        stays = [stay for stay in self._affinity.used_since(since_ns) if stay.since_ns >= since_ns]
        self._append((stay.source, stay.node, stay.used_ns) for stay in reversed(stays))

    def _touch(self) -> None:
        """Begin to look for those who came again, or are still there."""
        self._again_ns, self._touched_ns = self._touched_ns, self._clocks.now_ns()
        self._looked_at = iter(self._affinity.stays())

    def _look(self, stays: Iterable[Stay]) -> None:
        """Append those of ``stays`` that were used since, or have a connection: these count as used now.

        Not those whose sources have moved since the look began, or a restart would send them back.
        """
        now_ns, since_ns, has = self._clocks.now_ns(), self._again_ns, self._affinity.has
        self._append(
            (stay.source, stay.node, now_ns if stay.connections else stay.used_ns)
            for stay in stays
            if (stay.connections or stay.used_ns >= since_ns) and has(stay)
        )

    def _append(self, entries: Iterable[Entry]) -> None:
        records = list(self._clocks.to_wall(entries))
        if records:
            self._written += len(records)
            if not self._troubled:
                self._do(self._book.append, self._writer.frame(records))
            if self._anew is not None:
                self._anew.meanwhile += records

    def _begin_anew(self) -> None:
        self._anew = _Anew(self._clocks.to_wall(self._affinity.dump(self._clocks.now_ns())))
        self._do(self._book.begin_draft)

    def _write_anew(self) -> None:
        assert self._anew is not None
        anew, some = self._anew, list(islice(self._anew.records, _SLICE))
        anew.count += len(some or anew.meanwhile)
        self._do(self._book.draft, anew.writer.frame(some or anew.meanwhile))
        if not some:
            self._anew = None
            self._writer, self._written = anew.writer, anew.count
            self._thread.run(self._book.replace).addCallbacks(self._replaced, self._failed)

    def _do(self, work: Callable[..., None], *arguments: Any) -> None:
        self._thread.run(work, *arguments).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        """The disk is full, or worse: the balancer goes on, and writes all anew in a while."""
        failure.trap(OSError)
        self._anew = None
        self._failed_ticks = _PAUSE_TICKS
        if not self._troubled:
            self._troubled = True
            self._log.error(
                "sources are not written to {path}: {why}; a restart would not know them. It is tried again",
                path=str(self._path),
                why=failure.getErrorMessage(),
            )

    def _replaced(self, _: None) -> None:
        if self._troubled:
            self._troubled = False
            self._log.info("sources are written to {path} again", path=str(self._path))


@attrs.define(eq=False)
class _Anew:
    """A book that is being written to replace the one that there is."""

    records: Iterator[Record]
    writer: Writer = attrs.field(factory=Writer)
    meanwhile: list[Record] = attrs.field(factory=list)
    count: int = 0
