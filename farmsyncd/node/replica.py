"""One dataset on this node: hears the plan, has versions brought in, and swaps to them at their time.

What to do is decided by :mod:`farmsyncd.core.standing`; this carries it out. A swap is one pointer in memory and one
rename on disk. Before it, the turn is written down in the record, so that whatever the node's end, its next start
knows which cycle the disk has got to.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from farmsyncd.core import standing
from farmsyncd.core.messages.schedule import Flipped, Plan, Standing
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Holding, Known, Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.timing.trigger import Trigger
from farmsyncd.errors import LocalError
from farmsyncd.node.boot import Found
from farmsyncd.node.diary import Diary
from farmsyncd.node.errand import Errand
from farmsyncd.node.pointing import Pointing, Reckoning, Remembered
from farmsyncd.node.record import Record, RecordFile
from farmsyncd.node.shelf import Shelf
from farmsyncd.node.surroundings import Order, Surroundings
from farmsyncd.node.swaps import LONGEST_DETAIL, Swaps
from farmsyncd.node.upkeep import Upkeep

HUSH_S = 0.8
"""How long staging rests around a swap; the rehearsal that begins it comes half a second before."""


class Replica:
    """One dataset on this node. ``found`` is what its disk held at start.

    ``remembered_ns`` is when the pending turn comes, by the node's clock, if that was settled before this start.
    """

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
        self.known = Known(active=found.active, next=found.pending)
        self.shelf = Shelf(cache.version_path, pointing.current, found.complete)
        self.errand = Errand(dataset, self._bring, self._brought, self._changed, around.wakes, around.random)
        self._diary = Diary(dataset, found.record, records, cache, around.disk)
        self._swaps = Swaps(dataset, self._diary, around, cache.version_path, self.reconsider)
        self._upkeep = Upkeep(dataset, cache, self.shelf, around, lambda: bool(self.known.next or self.errand.busy))
        self._found = found
        self._cache = cache
        self._around = around
        self._remembered = None if remembered_ns is None else Remembered(remembered_ns)
        self._unlinked: Turn | None = None
        self._untold: tuple[Turn, int] | None = None  # a swap, and when it was done
        self._stopped = False
        self._trigger = Trigger(
            around.clock, around.wakes, pointing.deadline_ns, self._fire, self._rehearse, around.sleep
        )

    # The life of a replica

    def start(self) -> None:
        """Serve what the disk holds, if it may be served; then do what is due."""
        for damage in self._found.damaged:
            self.log.error(
                "{dataset}: version {version} on this disk is damaged and will not be served: {what}",
                dataset=self.dataset, version=damage.version, what=damage.what,
            )  # fmt: skip
        active = self._reached()
        self.pointing.serve(active)
        if active is not None:
            self.log.info(
                "{dataset}: serving cycle {cycle}, version {version}, from this disk",
                dataset=self.dataset, cycle=active.cycle, version=active.version,
            )  # fmt: skip
            self._link(active)
            if self.record.active is None or self.record.active.cycle != active.cycle:
                self._swaps.done(active, self._around.clock.now_ns())
                self._diary.swapped(active)
        self.reconsider()

    def _reached(self) -> Turn | None:
        """The active turn as of now: looking at the disk takes its time, in which readers may have flipped."""
        pending, remembered = self._found.pending, self._remembered
        if pending is None or remembered is None or pending.version not in self._found.complete:
            return self._found.active
        return pending if remembered.at_ns <= self._around.clock.now_ns() else self._found.active

    def stop(self) -> Deferred[None]:
        """Bring nothing more in and flip no more; fires when nothing runs any more."""
        self._follow_up()
        self._stopped = True
        self._trigger.stop()
        self._upkeep.stop()
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
            self._swaps.foresee(coming.cycle)
            self.log.info(
                "{dataset}: cycle {cycle}, version {version}, comes at {at_ns} farm time",
                dataset=self.dataset, cycle=coming.cycle, version=coming.version, at_ns=coming.at_ns,
            )  # fmt: skip
        if self.known.active is not None:
            self._diary.saw(self.known.active.cycle)
        self.reconsider()

    def keep(self, versions: tuple[str, ...]) -> None:
        """These versions are pinned, and no others."""
        if self._diary.pin(versions):
            self._tidy()

    def noted(self, cycle: int) -> None:
        """The data server has taken down the flip of ``cycle``."""
        self._diary.noted(cycle)

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
        if self._stopped or self._follow_up():
            return
        if self._unlinked is not None:
            self._link(self._unlinked)
        self._swaps.reckon()
        decision = standing.decide(self.known, self._holding(), self._around.farm_ns())
        if decision.flip is not None:
            if self._diary.announces(decision.flip, self.reconsider):
                self._swap(decision.flip)
            return  # a swap reconsiders, and so does the writing
        before = self.pointing.active
        self._arm(decision.arm)
        if self.pointing.active is before:  # else it was time already, and all will be reconsidered
            self.errand.want(decision.stage)
            self._changed()

    # How it stands

    @property
    def record(self) -> Record:
        """What is written down."""
        return self._diary.record

    @property
    def lateness_ns(self) -> int | None:
        """How long after its time the last swap of this process was done."""
        return self._swaps.lateness_ns

    def standing(self) -> Standing:
        """What the data server is told of this dataset."""
        now_ns = self._around.clock.now_ns()
        estimate = self._around.estimate()
        active, coming = self.pointing.active, self.known.next
        staged = coming if coming is not None and coming.version in self.shelf.versions else None
        return Standing(
            dataset=self.dataset,
            state=self.state(),
            cycle=active.cycle if active else None,
            version=active.version if active else None,
            staged_cycle=staged.cycle if staged else None,
            staged_version=staged.version if staged else None,
            offset=None if estimate is None else estimate.offset_at(now_ns),
            error_bound=None if estimate is None else estimate.bound_at(now_ns),
            detail=self.detail().encode("utf-8", "replace")[:LONGEST_DETAIL],
        )

    def state(self) -> str:
        """One word for how the node stands with this dataset."""
        return standing.state(
            self.known, self._holding(), self._around.farm_ns(), staging=self.errand.busy, failed=self.errand.failed
        )

    def detail(self) -> str:
        """What is wrong, if anything."""
        return self.known.objection or self.errand.fault or standing.doubt(self.known)

    def flips(self) -> list[Flipped]:
        """The reports that the data server has not noted yet."""
        return self._swaps.flips()

    def _holding(self) -> Holding:
        return Holding(self.pointing.active, self.shelf.versions)

    def _changed(self) -> None:
        if not self._stopped:
            self._around.told(self.dataset)

    # Staging

    def _bring(self, turn: Turn) -> Deferred[Manifest]:
        self._upkeep.spare(turn.version)
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
                spare=self._upkeep.links,
            )
        ).addCallback(self._upkeep.brought)

    def _spread(self, turn: Turn) -> float:
        """How long to wait before staging, at random: never much of the time that is left until the turn."""
        now_ns = self._around.farm_ns()
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
        if not self._diary.announces(turn, self.reconsider):
            return
        reckoning: Reckoning | None = self._around.estimate()
        if reckoning is None and self._remembered is not None and turn == self._found.pending:
            reckoning = self._remembered
        if self.pointing.arm(turn, reckoning):
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
            self._switch(turn)
            # Other datasets may be due at this very instant: nothing of the rest is as urgent as their swaps.
            self._around.wakes.callLater(0, self._follow_up)

    # The swap

    def _swap(self, turn: Turn) -> None:
        self._switch(turn)
        self._follow_up()

    def _switch(self, turn: Turn) -> None:
        linked = self._rename(turn)
        done_ns = self._around.clock.now_ns()
        self.pointing.serve(turn)
        self._trigger.stop()
        self._unlinked = None if linked else turn
        self._untold = turn, done_ns

    def _follow_up(self) -> bool:
        """Do what a swap leaves to be done; whether there was one."""
        untold, self._untold = self._untold, None
        if untold is None:
            return False
        self._swaps.done(*untold)
        self._diary.swapped(untold[0])
        self._tidy()
        self.reconsider()
        return True

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

    def _tidy(self) -> None:
        turns = (self.pointing.active, self.pointing.armed, self.known.active, self.known.next, self.errand.wanted)
        self._upkeep.tidy({turn.version for turn in turns if turn is not None}, self.record)
