"""What operators ask and say, put to the parts that know: the data server's front desk."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from farmsyncd.core.cycle import Cycle
from farmsyncd.core.refusal import Refused
from farmsyncd.core.when import When
from farmsyncd.core.words import is_name
from farmsyncd.data import forecast, reports
from farmsyncd.data.content.housekeeping import Housekeeping
from farmsyncd.data.content.library import Library
from farmsyncd.data.content.publication import Offer
from farmsyncd.data.flips import FlipBook
from farmsyncd.data.keeper import Keeper, unknown_dataset
from farmsyncd.data.pins import PinBoard
from farmsyncd.data.reports import Json
from farmsyncd.data.roster import Roster
from farmsyncd.edges.catalog import Catalog
from farmsyncd.edges.timing.farmclock import FarmClock
from farmsyncd.edges.workthread import WorkThread

_HISTORY = 1000


@attrs.frozen
class Desk:
    """Answers questions, and takes down pins and cancellations. Refuses what names something that there is not."""

    catalog: Catalog
    thread: WorkThread
    keeper: Keeper
    library: Library
    roster: Roster
    pins: PinBoard
    flips: FlipBook
    clock: FarmClock
    housekeeping: Housekeeping
    faults: Mapping[str, str]
    """Why the sources of datasets cannot be read, by the datasets' names."""

    def to_utc_ns(self, farm_ns: int) -> int:
        """The wall clock's time of a farm time."""
        return self.clock.to_utc_ns(farm_ns)

    def status(self) -> Json:
        """What ``farmsync status --json`` prints."""
        return reports.status(
            self.clock.now_ns(),
            self.clock.epoch,
            self.keeper.courses.values(),
            self.roster.records(),
            self.pins.all(),
            self.faults,
        )

    async def history(self, dataset: str) -> Json:
        """The cycles of a dataset."""
        self._expect_dataset(dataset)
        cycles = await self.thread.run(self.catalog.history, dataset, _HISTORY)
        return reports.history(dataset, cycles, self.to_utc_ns)

    async def report(self, dataset: str, cycle: int | None) -> Json:
        """The flip report of a cycle; None is the newest that was activated."""
        self._expect_dataset(dataset)
        gathered = await self.flips.gather(dataset, cycle)
        if gathered is None:
            what = "no cycle has been activated yet" if cycle is None else f"there is no cycle {cycle}"
            raise Refused("unknown", f"expected a cycle of {dataset}, and {what}; see `farmsync history {dataset}`")
        return reports.report(*gathered, self.to_utc_ns)

    async def cancel(self, dataset: str, by: str) -> Cycle:
        """Drop the pending cycle; which it was."""
        self._expect_dataset(dataset)
        step = await self.keeper.cancel(dataset, by)
        assert step.dropped is not None
        return step.dropped

    async def version_to_roll_back_to(self, dataset: str, version: str | None) -> str:
        """``version``, or the one that was active before the present one. Raises Refused when it is not to be had."""
        self._expect_dataset(dataset)
        course = await self.keeper.current(dataset, "a rollback")
        past = [
            one
            for one in await self.thread.run(self.catalog.history, dataset, _HISTORY)
            if one.outcome in {"active", "past"}
        ]
        if version is None:
            active = course.active.version if course is not None and course.active is not None else None
            version = next((one.version for one in past if one.version != active), None)
            if version is None:
                raise Refused("unknown", f"expected a version of {dataset} before the active one, and there is none")
        kept = {one.version for one in await self.thread.run(self.catalog.versions) if one.dataset == dataset}
        if version in kept and version in self.library:
            return version
        choice = ", ".join(sorted(kept)) or "none"
        if any(one.version == version for one in past):
            raise Refused("gone", f"version {version} of {dataset} is kept no longer; those that are: {choice}")
        raise Refused("unknown", f"expected a version of {dataset} ({choice}), and {version} came")

    async def pin(self, node: str, dataset: str, version: str) -> None:
        """Have a node keep a version."""
        self._expect_dataset(dataset)
        self._expect_node(node)
        if version not in self.library and (dataset, version) not in self.roster.versions_in_use():
            raise Refused("unknown", f"expected a version of {dataset} that is kept, and {version} is not")
        await self.pins.pin(node, dataset, version)
        self._tell_pins(node, dataset)

    async def unpin(self, node: str, dataset: str) -> None:
        """Let a node drop what was pinned."""
        self._expect_dataset(dataset)
        if not await self.pins.unpin(node, dataset):
            raise Refused("unknown", f"expected a pin of {node} in {dataset}, and there is none")
        self._tell_pins(node, dataset)
        self.housekeeping.soon()

    def _tell_pins(self, node: str, dataset: str) -> None:
        present = self.roster.present(node)
        if present is not None:
            present.tell_pins(dataset)

    async def forecast(self, dataset: str, version: str, wished: When, offer: Offer | None) -> Json:
        """What a publication would do."""
        if not is_name(dataset):
            raise unknown_dataset(dataset, self.keeper.courses)
        await self.keeper.current(dataset, "a forecast")
        step = self.keeper.foresee(dataset, version, wished)
        assert step.scheduled is not None
        new = offer.manifest if offer is not None else await self.library.manifest(version)
        active = step.before.active
        old = await self.library.manifest(active.version) if active and active.version in self.library else None
        now_ns = self.clock.now_ns()
        step_bytes, all_bytes = forecast.fetched_bytes(old, new), forecast.fetched_bytes(None, new)
        return {
            "dataset": dataset,
            "version": version,
            "cycle": step.scheduled.number,
            "activates_at_ns": step.scheduled.activates_at_ns,
            "freezes_at_ns": step.scheduled.freezes_at_ns,
            "utc_ns": self.to_utc_ns(step.scheduled.activates_at_ns),
            "active": active.version if active else None,
            "replaces": step.dropped.version if step.dropped else None,
            "total_bytes": new.total_bytes,
            "upload_chunks": len(offer.hold.missing) if offer else 0,
            "upload_bytes": offer.missing_bytes if offer else 0,
            "node_bytes": step_bytes,
            **forecast.changes(old, new),
            "nodes": forecast.likely_ready(step.before, step, now_ns, step_bytes, all_bytes, self.roster.records()),
        }

    def _expect_dataset(self, dataset: str) -> None:
        if dataset not in self.keeper.courses:
            raise unknown_dataset(dataset, self.keeper.courses)

    def _expect_node(self, node: str) -> None:
        if not self.roster.known(node):
            names = ", ".join(sorted({record.name for record, _connected in self.roster.records()})) or "none yet"
            raise Refused("unknown", f"expected a node of this farm ({names}), and {node} came")
