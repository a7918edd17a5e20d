"""A periodic dataset: whenever nothing is pending, its source is read and the next activation is calculated.

That is so at the first start, and after each roll-over, which the first node to come back starts. A tree that is as
it was becomes the next cycle all the same: the cycles are what keeps the dataset going.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from farmsyncd.core.cycle import Phase, next_on_grid
from farmsyncd.core.when import When, WhenKind
from farmsyncd.data.changes import Change
from farmsyncd.data.config import SourceConfig
from farmsyncd.data.content.publication import Publications
from farmsyncd.data.content.sources import Source
from farmsyncd.data.keeper import FarmTime, Keeper
from farmsyncd.errors import FarmsyncError

_FIRST_RETRY = 1.0
_LAST_RETRY = 300.0


class WallTime(FarmTime, Protocol):
    """Farm time, and the wall clock's: activations lie on the latter's whole periods, from which farm time drifts."""

    def to_utc_ns(self, farm_ns: int) -> int:
        """The wall clock's time of a farm time."""


class Periodic:
    """Keeps one dataset going.

    ``cache`` is where the reading of its tree is remembered. In ``faults`` stands why its source cannot be read, for
    as long as that is so.
    """

    _log = Logger()

    def __init__(
        self,
        dataset: str,
        config: SourceConfig,
        source: Source,
        keeper: Keeper,
        publications: Publications,
        time: WallTime,
        lead_ns: int,
        clock: IReactorTime,
        cache: Path,
        faults: dict[str, str],
    ) -> None:
        self._dataset = dataset
        self._config = config
        self._source = source
        self._keeper = keeper
        self._publications = publications
        self._time = time
        self._lead_ns = lead_ns
        self._clock = clock
        self._cache = cache
        self._faults = faults
        self._not_before_ns = 0
        self._settled: str | None = None  # the version that the source's tree was last
        self._running: Deferred[None] | None = None
        self._again = False
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._stopped = True

    def start(self) -> None:
        """Begin; a dataset of which something is pending waits for its roll-over."""
        self._stopped = False
        self._look()

    def stop(self) -> None:
        """End; what is being read is given up."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._running is not None:
            self._running.cancel()

    def changed(self, change: Change) -> None:
        """A course has changed: if it is this dataset's, and nothing is pending now, it goes on here."""
        if change.course.dataset != self._dataset or self._stopped:
            return
        step = change.step
        if step is not None and step.scheduled is None and step.dropped is not None:
            # Cancelled: not this time, but the next. The wall clock may have been moved a little meanwhile.
            self._not_before_ns = step.dropped.activates_at_ns + self._config.period_ns // 2
        self._look()

    def _look(self) -> None:
        course = self._keeper.courses.get(self._dataset)
        if course is not None and course.phase(self._time.now_ns()) is not Phase.IDLE:
            return
        if self._running is not None:
            self._again = True
            return
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._again = False
        running = Deferred.fromCoroutine(self._go_on())
        if not running.called:
            self._running = running
            running.addBoth(self._done)

    def _done(self, _result: object) -> None:
        self._running = None
        if self._again and not self._stopped:
            self._look()

    async def _go_on(self) -> None:
        try:
            await self._schedule()
            self._failures = 0
            self._faults.pop(self._dataset, None)
        except CancelledError:
            pass
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self._stopped:
            return
        wait = min(_FIRST_RETRY * 2.0**self._failures, _LAST_RETRY, self._config.period_ns / 1e9)
        self._failures += 1
        self._faults[self._dataset] = (
            str(error) if isinstance(error, FarmsyncError) else "a fault of the data server; its log says more"
        )
        if isinstance(error, FarmsyncError):
            self._log.error(
                "{dataset}: its source could not be read: {error}. Tried again in {wait} s; what is active stays",
                dataset=self._dataset, error=str(error), wait=wait,
            )  # fmt: skip
        else:
            self._log.failure("{dataset}: its source could not be read; tried again", dataset=self._dataset)
        self._retry = self._clock.callLater(wait, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._look()

    async def _schedule(self) -> None:
        settled = self._settled if self._settled is not None and self._publications.keeps(self._settled) else None
        tree = await self._source.read(known=settled is not None)
        if tree is None:
            assert settled is not None
            await self._publications.publish_kept(
                settled, self._dataset, self._next(), "periodic", self._dataset, unless_pending=True
            )
            return
        try:
            offer = await self._publications.take_in(tree, self._cache)
            with offer:
                await self._publications.publish(
                    offer, self._dataset, self._next(), "periodic", self._dataset, unless_pending=True
                )
            self._settled = offer.manifest.version
            self._source.settle()
        finally:
            await self._publications.clear(self._source.clear)

    def _next(self) -> When:
        earliest_ns = max(self._time.now_ns() + self._lead_ns, self._not_before_ns)
        earliest_utc_ns = self._time.to_utc_ns(earliest_ns)
        at_utc_ns = next_on_grid(self._config.period_ns, self._config.offset_ns, earliest_utc_ns)
        return When(WhenKind.FARM, self._time.from_utc_ns(at_utc_ns))
