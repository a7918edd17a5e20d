"""What a dataset's course does next: a pure planner from (course, request, now) to a step.

A dataset's *course* is its active cycle and its pending one. It moves through four phases::

            publish, rollback               freezes_at                activates_at
    IDLE ----------------------> PENDING ---------------> FROZEN ------------------> DUE --- roll_over ---> IDLE
     ^ <------- cancel ----------'   `-- publish replaces                                      (activated)

The freeze point lies a lead before the activation, so that a plan that nodes may act upon without hearing from the
data server again stands from then on. A publication on shorter notice than the lead is frozen from the start: whoever
asks for it in so little time cannot take it back.

A step only *describes* a change. The catalog carries it out if the course is still the one it was planned for, which
is what makes a roll-over happen once, however many ask for it. Cycle numbers are never used twice, not even those of
cancelled cycles: nodes hold on to the highest number that they have seen. All times are farm time in nanoseconds.
"""

from __future__ import annotations

import enum

import attrs

from farmsyncd.core.refusal import Refused

SECOND_NS = 1_000_000_000


class Phase(enum.Enum):
    """Where a course stands at one moment."""

    IDLE = "idle"
    PENDING = "pending"
    FROZEN = "frozen"
    DUE = "due"


@attrs.frozen
class Cycle:
    """One activation of one version. From ``freezes_at_ns`` on it cannot be replaced or cancelled."""

    number: int
    version: str
    activates_at_ns: int
    freezes_at_ns: int


@attrs.frozen
class Course:
    """A dataset's plan. ``revision`` grows with each change, ``last_cycle`` is the highest number given out so far."""

    dataset: str
    revision: int = 0
    last_cycle: int = 0
    active: Cycle | None = None
    pending: Cycle | None = None

    def phase(self, now_ns: int) -> Phase:
        """Where the course stands at ``now_ns``."""
        if self.pending is None:
            return Phase.IDLE
        if now_ns >= self.pending.activates_at_ns:
            return Phase.DUE
        return Phase.FROZEN if now_ns >= self.pending.freezes_at_ns else Phase.PENDING


@attrs.frozen
class Step:
    """One change of a course: from ``before`` to ``after``.

    ``scheduled`` is the cycle that becomes pending, ``dropped`` the one that no longer is (replaced, when another is
    scheduled; else cancelled), and ``activated`` the one that becomes active.
    """

    before: Course
    after: Course
    scheduled: Cycle | None = None
    dropped: Cycle | None = None
    activated: Cycle | None = None


def publication(course: Course, version: str, activates_at_ns: int, now_ns: int, lead_ns: int) -> Step:
    """Make ``version`` the next cycle; a pending one that is not frozen yet gives way.

    Raises Refused: ``bad`` for a time that is not in the future, ``frozen`` when the pending cycle stands. A course
    that is due must be rolled over first.
    """
    if activates_at_ns <= now_ns:
        raise Refused("bad", "expected an activation time in the future, and this one has passed")
    _must_not_be_frozen(course, now_ns, "publish after it")
    cycle = Cycle(
        number=course.last_cycle + 1,
        version=version,
        activates_at_ns=activates_at_ns,
        freezes_at_ns=max(activates_at_ns - lead_ns, now_ns),
    )
    after = attrs.evolve(course, revision=course.revision + 1, last_cycle=cycle.number, pending=cycle)
    return Step(course, after, scheduled=cycle, dropped=course.pending)


def cancellation(course: Course, now_ns: int) -> Step:
    """Drop the pending cycle. Raises Refused: ``unknown`` when there is none, ``frozen`` when it stands."""
    if course.pending is None:
        raise Refused("unknown", f"expected a pending cycle of {course.dataset}, and nothing is pending")
    _must_not_be_frozen(course, now_ns, "roll back after it")
    after = attrs.evolve(course, revision=course.revision + 1, pending=None)
    return Step(course, after, dropped=course.pending)


def roll_over(course: Course, now_ns: int) -> Step | None:
    """The pending cycle becomes the active one, once its time has come; None before."""
    if course.phase(now_ns) is not Phase.DUE:
        return None
    after = attrs.evolve(course, revision=course.revision + 1, active=course.pending, pending=None)
    return Step(course, after, activated=course.pending)


def next_on_grid(period_ns: int, offset_ns: int, not_before_ns: int) -> int:
    """The first activation time of a periodic dataset at or after ``not_before_ns``.

    The grid is every whole ``period_ns`` of farm time since the Unix epoch, moved by ``offset_ns``: it does not wander
    with late roll-overs or restarts, and activations that a stopped data server missed are not made up for.
    """
    periods = -((offset_ns - not_before_ns) // period_ns)
    return offset_ns + periods * period_ns


def _must_not_be_frozen(course: Course, now_ns: int, advice: str) -> None:
    phase = course.phase(now_ns)
    if course.pending is not None and phase in {Phase.FROZEN, Phase.DUE}:
        seconds = max(0.0, (course.pending.activates_at_ns - now_ns) / SECOND_NS)
        raise Refused(
            "frozen",
            f"cycle {course.pending.number} of {course.dataset} activates in {seconds:.3f} s and is past its freeze "
            f"point: nodes already count on it; {advice}",
        )
