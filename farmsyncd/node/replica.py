"""One dataset on this node: hears the plan, has versions brought in, and swaps to them at their time.

What to do is decided by :mod:`farmsyncd.core.standing`; this carries it out. A swap is one pointer in memory and one
rename on disk. Before it, the turn is written down in the record, so that whatever the node's end, its next start
knows which cycle the disk has got to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core import standing
from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.messages.schedule import Flipped, Plan, Standing
from farmsyncd.core.retention import removable
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Holding, Known, Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.timing.clocks import LocalClock
from farmsyncd.edges.timing.trigger import Trigger
from farmsyncd.errors import LocalError
from farmsyncd.node.boot import Found
from farmsyncd.node.errand import Errand
from farmsyncd.node.hooks import Flip, Hooks
from farmsyncd.node.pointing import Pointing, Reckoning
from farmsyncd.node.record import FlipNote, Record, RecordFile, Served
from farmsyncd.node.shelf import Shelf
from farmsyncd.node.worker import Worker


@attrs.frozen
class Order:
    """A version to be brought in: into which cache, for when, and from what it may be made."""

    dataset: str
    turn: Turn
    cache: CacheDir
    bases: tuple[Manifest, ...]
    """Versions that are complete here, the active one first."""
    after: str | None
    """The version that is active here."""
    wait_s: float
    """For how long to wait first, so that a farm's nodes do not come all at once."""


class Stager(Protocol):
    """Whoever brings versions in."""

    def bring(self, order: Order) -> Deferred[Manifest]:
        """Fetch, verify and adopt a version. Fails with a FarmsyncError that says what was wrong; may be cancelled."""

    def hush(self, seconds: float) -> None:
        """Do nothing that costs for so long: a swap is near."""


@attrs.frozen
class Surroundings:
    """What all replicas of a node share. ``told`` is called with a dataset's name when its standing has changed."""

    clock: LocalClock
    wakes: IReactorTime
    estimate: Callable[[], Estimate | None]
    disk: Worker
    stager: Stager
    hooks: Hooks
    told: Callable[[str], None]
    random: Callable[[], float]
    keep: int = 3
    spread_ns: int = 500_000_000
    sleep: Callable[[float], None] = time.sleep


HUSH_S = 0.8
"""How long staging rests around a swap; the rehearsal that begins it comes half a second before."""


@attrs.frozen
class _Remembered:
    """An appointment that was made before this start of the node."""

    at_ns: int

    def local_ns(self, farm_ns: int) -> int:
        del farm_ns
        return self.at_ns


@attrs.define
class _Swap:
    """A swap that is to be reported: when it was done by the node's clock, and whether its hooks still run."""

    turn: Turn
    local_ns: int
    detail: str | None = None


class Replica:
    """One dataset on this node. ``found`` is what its disk held at start."""

    log = Logger()

    def __init__(
        self,
        dataset: str,
        found: Found,
        cache: CacheDir,
        records: RecordFile,
        pointing: Pointing,
        around: Surroundings,
        remembered_ns: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.pointing = pointing
        self.shelf = Shelf(cache.version_path, pointing.current, found.complete)
        self.record = found.record
        self.errand = Errand(dataset, self._bring, self._brought, self._changed, around.wakes, around.random)
        self.known = Known(active=found.active, next=found.pending)
        self._found = found
        self._cache = cache
        self._records = records
        self._around = around
        self._remembered = None if remembered_ns is None else _Remembered(remembered_ns)
        self._written = found.pending  # the turn that the record on the disk announces
        self._writing = False
        self.lateness_ns: int | None = None  # of the last swap in this process
        self._swaps: list[_Swap] = []
        self._unlinked: Turn | None = None
        self._foreseen = 0  # the highest cycle that was heard of before its time
        self._trigger = Trigger(
            around.clock, around.wakes, pointing.deadline_ns, self._fire, self._rehearse, around.sleep
        )
        self._going: set[str] = set()
        self._stopped = False

    # The life of a replica

    def start(self) -> None:
        """Serve what the disk holds, if it may be served; then do what is due."""
        for damage in self._found.damaged:
            self.log.error(
                "{dataset}: version {version} on this disk is damaged and will not be served: {what}",
                dataset=self.dataset, version=damage.version, what=damage.what,
            )  # fmt: skip
        active = self._found.active
        self.pointing.serve(active)
        if active is not None:
            self.log.info(
                "{dataset}: serving cycle {cycle}, version {version}, from this disk",
                dataset=self.dataset, cycle=active.cycle, version=active.version,
            )  # fmt: skip
            self._link(active)
            if self.record.active is None or self.record.active.cycle != active.cycle:
                self._note_swap(active)
        self.reconsider()

    def stop(self) -> Deferred[None]:
        """Bring nothing more in and flip no more; fires when nothing runs any more."""
        self._stopped = True
        self._trigger.stop()
        return self.errand.stop()

    # What comes from outside

    def hear(self, plan: Plan) -> None:
        """A plan came."""
        before = self.known
        self.known = standing.hear(before, plan, self.record.highest)
        if self.known.objection and self.known.objection != before.objection:
            self.log.error("{dataset}: {objection}", dataset=self.dataset, objection=self.known.objection)
        if self.known is before or self.known.objection:
            self._changed()
            return
        coming = self.known.next
        if coming is not None and coming != before.next:
            self._foreseen = max(self._foreseen, coming.cycle)
            self.log.info(
                "{dataset}: cycle {cycle}, version {version}, comes at {at_ns} farm time",
                dataset=self.dataset, cycle=coming.cycle, version=coming.version, at_ns=coming.at_ns,
            )  # fmt: skip
        active = self.known.active
        if active is not None and active.cycle > self.record.highest:
            self._save(msgspec.structs.replace(self.record, highest=active.cycle))
        self.reconsider()

    def keep(self, versions: tuple[str, ...]) -> None:
        """These versions are pinned, and no others."""
        if versions != self.record.pins:
            self._save(msgspec.structs.replace(self.record, pins=versions))
            self._tidy()

    def noted(self, cycle: int) -> None:
        """The data server has taken down the flip of ``cycle``."""
        if any(flip.cycle == cycle for flip in self.record.flips):
            self._save(self.record.noted(cycle))

    def connected(self) -> None:
        """There is a connection to the data server again: what it says counts anew."""
        self.known = attrs.evolve(self.known, revision=-1)
        self.errand.hurry()

    def distrust(self, version: str, what: str) -> None:
        """A version on the disk turned out to be damaged: it is not served any more, and is copied again if needed."""
        self.log.error(
            "{dataset}: version {version} on this disk is damaged and is not served any more: {what}",
            dataset=self.dataset, version=version, what=what,
        )  # fmt: skip
        self.shelf.drop([version])
        if self.pointing.armed is not None and self.pointing.armed.version == version:
            self._disarm()
        if self.pointing.active is not None and self.pointing.active.version == version:
            self.pointing.serve(None)
        self.reconsider()

    def reconsider(self) -> None:
        """Do what is to be done now; called whenever something has changed, and every few seconds."""
        if self._stopped:
            return
        if self._unlinked is not None:
            self._link(self._unlinked)
        self._reckon_swaps()
        decision = standing.decide(self.known, self._holding(), self._farm_ns())
        if decision.flip is not None:
            if self._is_written(decision.flip):
                self._swap(decision.flip)
            return  # a swap reconsiders, and so does the writing
        before = self.pointing.active
        self._arm(decision.arm)
        if self.pointing.active is before:  # else it was time already, and all has been reconsidered
            self.errand.want(decision.stage)
            self._changed()

    # How it stands

    def standing(self) -> Standing:
        """What the data server is told of this dataset."""
        now_ns = self._around.clock.now_ns()
        estimate = self._around.estimate()
        holding = self._holding()
        staged = self.pointing.armed or self._staged()
        return Standing(
            dataset=self.dataset,
            state=self.state(),
            cycle=holding.active.cycle if holding.active else None,
            version=holding.active.version if holding.active else None,
            staged_cycle=staged.cycle if staged else None,
            staged_version=staged.version if staged else None,
            offset=None if estimate is None else estimate.offset_at(now_ns),
            error_bound=None if estimate is None else estimate.bound_at(now_ns),
            detail=self.detail().encode("utf-8", "replace")[:2000],
        )

    def state(self) -> str:
        """One word for how the node stands with this dataset."""
        return standing.state(
            self.known, self._holding(), self._farm_ns(), staging=self.errand.busy, failed=self.errand.failed
        )

    def detail(self) -> str:
        """What is wrong, if anything."""
        return self.known.objection or self.errand.fault

    def flips(self) -> list[Flipped]:
        """The reports that the data server has not noted yet."""
        held = {swap.turn.cycle for swap in self._swaps}
        return [
            Flipped(
                dataset=self.dataset,
                cycle=flip.cycle,
                version=flip.version,
                activated_at=flip.activated_at_ns,
                error_bound=flip.error_bound_ns,
                detail=flip.detail.encode("utf-8", "replace")[:2000],
            )
            for flip in self.record.flips
            if flip.cycle not in held
        ]

    def _holding(self) -> Holding:
        return Holding(self.pointing.active, self.shelf.versions)

    def _staged(self) -> Turn | None:
        coming = self.known.next
        return coming if coming is not None and coming.version in self.shelf.versions else None

    def _farm_ns(self) -> int | None:
        estimate = self._around.estimate()
        return None if estimate is None else estimate.farm_ns(self._around.clock.now_ns())

    def _changed(self) -> None:
        if not self._stopped:
            self._around.told(self.dataset)

    # Staging

    def _bring(self, turn: Turn) -> Deferred[Manifest]:
        self._going.discard(turn.version)
        active = self.pointing.active
        first = [active.version] if active is not None and active.version in self.shelf.versions else []
        order = [*first, *sorted(self.shelf.versions - {*first})]
        return self._around.stager.bring(
            Order(
                dataset=self.dataset,
                turn=turn,
                cache=self._cache,
                bases=tuple(self.shelf.manifest(version) for version in order),
                after=first[0] if first else None,
                wait_s=self._spread(turn),
            )
        )

    def _spread(self, turn: Turn) -> float:
        """How long to wait before staging, at random: never much of the time that is left until the turn."""
        now_ns = self._farm_ns()
        if now_ns is None or turn.at_ns <= now_ns:
            return 0.0
        return min(self._around.spread_ns, (turn.at_ns - now_ns) // 20) / 1e9 * self._around.random()

    def _brought(self, turn: Turn, manifest: Manifest) -> None:
        self.log.info(
            "{dataset}: version {version} is staged for cycle {cycle}",
            dataset=self.dataset, version=turn.version, cycle=turn.cycle,
        )  # fmt: skip
        self.shelf.add(manifest)
        self.shelf.prepare(manifest.version)
        self.reconsider()

    # The appointment

    def _arm(self, turn: Turn | None) -> None:
        if turn is None:
            self._disarm()
            return
        if not self._is_written(turn):
            return
        estimate: Reckoning | None = self._around.estimate()
        if estimate is None and self._remembered is not None and turn == self._found.pending:
            estimate = self._remembered
        if self.pointing.arm(turn, estimate):
            self.shelf.prepare(turn.version)
            self._prepare_link(turn)
        if self.pointing.armed is None:
            return
        if self._trigger.running:
            self._trigger.check()  # it may sleep for a second, and the deadline may have come nearer
        else:
            self._trigger.start()

    def _disarm(self) -> None:
        if self.pointing.arm(None, None):
            self._trigger.stop()

    def _prepare_link(self, turn: Turn) -> None:
        try:
            self._cache.prepare_link(turn.version)
        except (OSError, LocalError) as error:
            self.log.error("{dataset}: {error}", dataset=self.dataset, error=str(error))

    def _rehearse(self) -> None:
        """Half a second before the swap: everything else is quiet, and what it will use is in memory."""
        self._around.stager.hush(HUSH_S)
        self.pointing.rehearse()
        armed = self.pointing.armed
        if armed is not None:
            self._prepare_link(armed)

    def _fire(self, due_ns: int) -> None:
        del due_ns
        turn = self.pointing.armed
        if turn is not None:
            self._swap(turn)

    # The swap

    def _swap(self, turn: Turn) -> None:
        linked = self._rename(turn)
        done_ns = self._around.clock.now_ns()
        self.pointing.serve(turn)
        # From here on nothing is urgent any more.
        self._trigger.stop()
        self._report(turn, done_ns)
        self._unlinked = None if linked else turn
        self._note_swap(turn)
        self._tidy()
        self.reconsider()

    def _rename(self, turn: Turn) -> bool:
        try:
            self._cache.point_link(turn.version, durable=False)
        except (OSError, LocalError) as error:
            self.log.error("{dataset}: the link cannot be replaced: {error}", dataset=self.dataset, error=str(error))
            return False
        return True

    def _link(self, turn: Turn) -> None:
        """Let the link name ``turn``'s version if it does not, as after a crash between two steps."""
        self._unlinked = None
        if self._cache.active_link() != turn.version and not self._rename(turn):
            self._unlinked = turn

    def _report(self, turn: Turn, done_ns: int) -> None:
        estimate = self._around.estimate()
        self.lateness_ns = None if estimate is None else estimate.farm_ns(done_ns) - turn.at_ns
        late_ms = "?" if self.lateness_ns is None else round(self.lateness_ns / 1e6, 3)
        self.log.info(
            "{dataset}: cycle {cycle}, version {version}, is active, {late_ms} ms after its time",
            dataset=self.dataset, cycle=turn.cycle, version=turn.version, late_ms=late_ms,
        )  # fmt: skip
        was = self.record.active
        if (was is None and turn.cycle > self._foreseen) or (was is not None and turn.cycle <= was.cycle):
            return  # a first copy of what was active already, or a damaged version copied again: no flip of the farm's
        swap = _Swap(turn, done_ns)
        self._swaps.append(swap)
        if not self._around.hooks:
            swap.detail = ""
            return

        def ended(detail: str) -> None:
            swap.detail = detail
            self.reconsider()

        told = Flip(self.dataset, turn.version, turn.cycle, str(self._cache.version_path(turn.version)))
        ensureDeferred(self._around.hooks.run(told)).addCallbacks(ended, partial(self._hooks_failed, ended))

    def _hooks_failed(self, ended: Callable[[str], None], failure: Failure) -> None:
        self.log.failure("{dataset}: running the hooks met a fault of ours", failure, dataset=self.dataset)
        ended(f"the hooks could not be run: {failure.getErrorMessage()}")

    def _reckon_swaps(self) -> None:
        """Turn finished swaps into notes for the data server, once farm time and the hooks' outcome are known."""
        estimate = self._around.estimate()
        ready = [swap for swap in self._swaps if swap.detail is not None] if estimate is not None else []
        if not ready or estimate is None:
            return
        self._swaps = [swap for swap in self._swaps if swap not in ready]
        notes = tuple(
            FlipNote(
                cycle=swap.turn.cycle,
                version=swap.turn.version,
                activated_at_ns=estimate.farm_ns(swap.local_ns),
                error_bound_ns=estimate.bound_at(swap.local_ns),
                detail=swap.detail or "",
            )
            for swap in ready
        )
        self._save(self.record.with_flips(notes))

    # What must not be forgotten

    def _is_written(self, turn: Turn) -> bool:
        """Whether the record on the disk knows ``turn``; if not, it soon will, and then this is reconsidered."""
        if self._written == turn:
            return True
        if not self._writing:
            self._writing = True

            def written(_: object) -> None:
                # Even when the disk refused, which was logged: the flip must not depend on it.
                self._writing = False
                self._written = turn
                self.reconsider()

            self._save(msgspec.structs.replace(self.record, pending=Served.of(turn))).addBoth(written)
        return False

    def _note_swap(self, turn: Turn) -> None:
        self._around.disk.run(self._cache.settle).addErrback(self._disk_failed)
        self._save(self.record.activated(turn))

    def _save(self, record: Record) -> Deferred[None]:
        self.record = record
        return self._around.disk.run(self._records.save, self.record).addErrback(self._disk_failed)

    def _disk_failed(self, failure: Failure) -> None:
        self.log.error(
            "{dataset}: the record of this dataset cannot be written: {error}",
            dataset=self.dataset, error=failure.getErrorMessage(),
        )  # fmt: skip

    def _tidy(self) -> None:
        """Remove versions that nobody needs; from here on they are not used, though removing them may take a while."""
        turns = (self.pointing.active, self.pointing.armed, self.known.active, self.known.next, self.errand.wanted)
        going = removable(
            self._cache.versions(),
            active=None,
            staged={turn.version for turn in turns if turn is not None},
            pinned=self.record.pins,
            activations=self.record.activations,
            keep=self._around.keep,
        )
        self.shelf.drop(going)
        self._going = set(going)
        if going:
            self._around.disk.run(self._remove, going).addErrback(self._disk_failed)

    def _remove(self, versions: list[str]) -> None:
        """In the disk's thread. A version that a reader uses stays until the next time."""
        for version in versions:
            if version in self._going:  # else it is wanted again
                self._cache.remove(version)
