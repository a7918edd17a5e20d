"""The only place that changes a dataset's course.

A change is planned purely (``core.cycle``), carried out by the catalog's compare-and-swap, and only then believed and
told. When another data server on the same catalog was quicker, the course is read again and planned upon anew.

A roll-over needs no clock of its own: the first node that comes back after the activation time asks for the course,
and finds it due. However many come at once, they wait for one another at the dataset's lock and see it done. The
backstop rolls over what nobody asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core import cycle, naming
from farmsyncd.core.cycle import Course, Phase, Step
from farmsyncd.core.messages.schedule import Plan
from farmsyncd.core.refusal import Refused
from farmsyncd.core.when import When
from farmsyncd.data.changes import Change, Changes
from farmsyncd.edges.catalog import Asked, Catalog, VersionRecord
from farmsyncd.edges.workthread import WorkThread

T = TypeVar("T")

_ATTEMPTS = 20
_BACKSTOP = "backstop"


class FarmTime(Protocol):
    """What the keeper needs of the farm's clock."""

    def now_ns(self) -> int:
        """Farm time."""

    def from_utc_ns(self, utc_ns: int) -> int:
        """The farm time of a wall clock time."""


@attrs.frozen
class Timing:
    """Leads in nanoseconds: the freeze point before an activation, and the backstop's patience after one."""

    freeze_lead_ns: int = 2 * cycle.SECOND_NS
    now_lead_ns: int = 3 * cycle.SECOND_NS
    backstop_ns: int = 5 * cycle.SECOND_NS


class Keeper:
    """Keeps all courses.

    ``expected`` names the nodes that should report the flip of a dataset, as of a farm time.
    """

    _log = Logger()

    def __init__(
        self,
        catalog: Catalog,
        thread: WorkThread,
        time: FarmTime,
        changes: Changes,
        expected: Callable[[str, int], Iterable[str]],
        timing: Timing,
    ) -> None:
        self._catalog = catalog
        self._thread = thread
        self._time = time
        self._changes = changes
        self._expected = expected
        self._timing = timing
        self._courses: dict[str, Course] = {}
        self._locks: dict[str, DeferredLock] = {}
        self._rolling: dict[str, list[Deferred[None]]] = {}  # who waits for the roll-over of a dataset

    @property
    def courses(self) -> Mapping[str, Course]:
        """All courses, as they were last known."""
        return self._courses

    def versions(self) -> set[tuple[str, str]]:
        """(dataset, version) of all that is active or pending."""
        cycles = [(one.dataset, cycle) for one in self._courses.values() for cycle in (one.active, one.pending)]
        return {(dataset, cycle.version) for dataset, cycle in cycles if cycle is not None}

    def load(self) -> None:
        """Read the courses from the catalog; blocks, and comes before all else."""
        self._courses = {course.dataset: course for course in self._catalog.courses()}

    async def current(self, dataset: str, by: str) -> Course | None:
        """The course of ``dataset`` after any roll-over that is due; ``by`` is who came back. None: no such dataset.

        When the roll-over fails, the course is what it was: nodes flip all the same, and the next one tries again.
        """
        course = self._courses.get(dataset)
        if course is not None and course.phase(self._time.now_ns()) is Phase.DUE:
            await self._rolled_over(dataset, by)
        return self._courses.get(dataset)

    async def publish(
        self, version: VersionRecord, when: When, origin: str, by: str, *, unless_pending: bool = False
    ) -> Step | None:
        """Make a version that is kept here the next cycle of its dataset. Raises Refused.

        ``unless_pending`` gives way to whatever is pending already: None then.
        """
        dataset = version.dataset
        naming.expect_usable(dataset, self._courses)

        def plan(course: Course, now_ns: int) -> Step | None:
            if unless_pending and course.pending is not None:
                return None
            at_ns = when.farm_ns(now_ns, self._timing.now_lead_ns, self._time.from_utc_ns)
            return cycle.publication(course, version.version, at_ns, now_ns, self._timing.freeze_lead_ns)

        return await self._exclusively(dataset, lambda: self._change(dataset, plan, origin, by, version))

    def foresee(self, dataset: str, version: str, when: When) -> Step:
        """The step that :meth:`publish` would take now. Raises Refused."""
        naming.expect_usable(dataset, self._courses)
        now_ns = self._time.now_ns()
        course = self._courses.get(dataset, Course(dataset))
        due = cycle.roll_over(course, now_ns)
        at_ns = when.farm_ns(now_ns, self._timing.now_lead_ns, self._time.from_utc_ns)
        return cycle.publication(due.after if due else course, version, at_ns, now_ns, self._timing.freeze_lead_ns)

    async def cancel(self, dataset: str, by: str) -> Step:
        """Drop the pending cycle of ``dataset``. Raises Refused."""
        if dataset not in self._courses:
            raise unknown_dataset(dataset, self._courses)
        step = await self._exclusively(dataset, lambda: self._change(dataset, cycle.cancellation, "publish", by))
        assert step is not None
        return step

    async def roll_over_overdue(self) -> None:
        """Roll over what has been due for longer than the backstop's patience."""
        latest_ns = self._time.now_ns() - self._timing.backstop_ns
        for course in list(self._courses.values()):
            if course.pending is not None and course.pending.activates_at_ns <= latest_ns:
                await self.current(course.dataset, _BACKSTOP)

    def _exclusively(self, dataset: str, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """Run ``work`` alone on ``dataset``, to its end, even if nobody waits for it any more."""
        working = self._locks.setdefault(dataset, DeferredLock()).run(work)
        waiting: Deferred[T] = Deferred()

        def deliver(result: T | Failure) -> None:
            if not waiting.called:
                waiting.callback(result)

        working.addBoth(deliver)
        return waiting

    def _rolled_over(self, dataset: str, by: str) -> Deferred[None]:
        """Fires when the roll-over that goes on, or begins now, is over; however many wait for it."""
        waiting: Deferred[None] = Deferred()
        if dataset in self._rolling:
            self._rolling[dataset].append(waiting)
            return waiting
        self._rolling[dataset] = [waiting]

        def over(result: Failure | None) -> None:
            if isinstance(result, Failure):
                self._log.failure("{dataset} could not be rolled over", failure=result, dataset=dataset)
            for one in self._rolling.pop(dataset):
                if not one.called:
                    one.callback(None)

        self._exclusively(dataset, lambda: self._roll_over(dataset, by)).addBoth(over)
        return waiting

    async def _roll_over(self, dataset: str, by: str) -> None:
        await self._change(dataset, lambda _course, _now_ns: None, "publish", by)

    async def _change(
        self,
        dataset: str,
        plan: Callable[[Course, int], Step | None],
        origin: str,
        by: str,
        version: VersionRecord | None = None,
    ) -> Step | None:
        """Roll ``dataset`` over if that is due, then carry out what ``plan`` makes of its course."""
        course = self._courses.get(dataset, Course(dataset))
        for _ in range(_ATTEMPTS):
            now_ns = self._time.now_ns()
            due = cycle.roll_over(course, now_ns)
            step = due or plan(course, now_ns)
            if step is None:
                return None
            expected = list(self._expected(dataset, now_ns)) if due else []
            asked = Asked(origin, by, now_ns)
            if await self._thread.run(self._catalog.advance, step, asked, None if due else version, expected):
                course = step.after
                self._believe(course, step, by)
                if not due:
                    return step
            else:
                found = await self._thread.run(self._catalog.course, dataset)
                course = found or Course(dataset)
                self._believe(course, None, by)
        raise Refused("busy", f"{dataset} is being changed from somewhere else all the time; try again")

    def _believe(self, course: Course, step: Step | None, by: str) -> None:
        if course.revision == 0:
            self._courses.pop(course.dataset, None)
            return
        self._courses[course.dataset] = course
        if step is not None:
            self._describe(step, by)
        self._changes.tell(Change(course, step))

    def _describe(self, step: Step, by: str) -> None:
        dataset = step.before.dataset
        if step.activated is not None:
            one = step.activated
            self._log.info(
                "{dataset}: cycle {cycle} ({version}) is active, rolled over by {by}",
                dataset=dataset, cycle=one.number, version=one.version, by=by,
            )  # fmt: skip
        elif step.scheduled is not None:
            one = step.scheduled
            self._log.info(
                "{dataset}: cycle {cycle} ({version}) is scheduled for {at_ns} by {by}, replacing {replaced}",
                dataset=dataset, cycle=one.number, version=one.version, at_ns=one.activates_at_ns, by=by,
                replaced="nothing" if step.dropped is None else f"cycle {step.dropped.number} ({step.dropped.version})",
            )  # fmt: skip
        elif step.dropped is not None:
            one = step.dropped
            self._log.info(
                "{dataset}: cycle {cycle} ({version}) is cancelled by {by}",
                dataset=dataset, cycle=one.number, version=one.version, by=by,
            )  # fmt: skip


def unknown_dataset(dataset: str, known: Iterable[str]) -> Refused:
    """The refusal of a request for a dataset that there is not."""
    names = ", ".join(sorted(known)) or "none yet"
    return Refused("unknown", f"expected a dataset of this farm ({names}), and {dataset} came")


def plan_message(course: Course) -> Plan:
    """``course`` as it is told."""
    active, pending = course.active, course.pending
    return Plan(
        course.dataset,
        course.revision,
        active.number if active else None,
        active.version if active else None,
        active.activates_at_ns if active else None,
        pending.number if pending else None,
        pending.version if pending else None,
        pending.activates_at_ns if pending else None,
        pending.freezes_at_ns if pending else None,
    )
