"""What a node should do about one dataset, and how it stands: functions of what it knows, what it has, and the time.

A node knows the plan (the active turn and the next), has some versions complete on its disk and serves at most one of
them. From these and farm time follow what to serve now, what to bring in, and what to flip to later. The node's actors
only carry out what :func:`decide` says, so every promise about late, missed and early turns is kept here:

* a turn is due when the data server says it is active, or when its time has come, told or not (the server may be away);
* the newest due turn counts: turns that were missed are not made up for;
* a node never goes back to an earlier cycle, whoever says so;
* a node without anything to serve copies what is active, unless the next turn is so near that it is the better one.
"""

from __future__ import annotations

import attrs

from farmsyncd.core.messages.schedule import Plan

NEAR_NS = 1_000_000_000
"""So close before the next turn, a node that lags behind brings in the next version at once, not the one before."""


@attrs.frozen
class Turn:
    """A cycle as a node knows it: its number, the version it leads to, and when, in farm time."""

    cycle: int
    version: str
    at_ns: int


@attrs.frozen
class Known:
    """What a node has heard of a dataset's schedule. ``revision`` is -1 until a plan came over this connection."""

    revision: int = -1
    active: Turn | None = None
    next: Turn | None = None
    freezes_at_ns: int | None = None
    objection: str = ""
    """Why the last plan was not believed; empty when it was."""


@attrs.frozen
class Holding:
    """What a node has: the turn it serves, and the versions that are complete and verified on its disk."""

    active: Turn | None = None
    complete: frozenset[str] = frozenset()


@attrs.frozen
class Decision:
    """What to do now. ``flip``: serve this at once. ``arm``: serve this at its time. ``stage``: bring this in."""

    flip: Turn | None = None
    arm: Turn | None = None
    stage: Turn | None = None


def hear(known: Known, plan: Plan, highest: int) -> Known:
    """``known`` after ``plan`` came; unchanged by a plan that is older than the last.

    ``highest`` is the highest cycle that this node has known to be active, kept on its disk. A plan that ends before
    it, or says that a cycle was of another version than it was (a data server that was restored from a backup, or set
    up anew) is not believed. One whose next cycle has got so far is only late: it was told just before the activation,
    or this node was away when a cycle was cancelled. What it calls active is not gone back to.
    """
    told, coming = plan.cycle or 0, plan.next_cycle or 0
    if max(told, coming) < highest:
        return _object(known, f"cycle {highest} or a later one to be active, and the data server says {told}")
    active = known.active
    for cycle, version in ((told, plan.version), (coming, plan.next_version)):
        if active is not None and active.cycle == cycle and active.version != version:
            return _object(known, f"cycle {cycle} to be of {active.version}, and the data server says {version}")
    if plan.revision < known.revision:
        return known
    if told >= highest:
        active = _turn(plan.cycle, plan.version, plan.activated_at)
    elif active is not None and active.cycle < highest:
        active = None
    return Known(
        revision=plan.revision,
        active=active,
        next=_turn(plan.next_cycle, plan.next_version, plan.activates_at),
        freezes_at_ns=plan.freezes_at,
    )


def _object(known: Known, expected: str) -> Known:
    return attrs.evolve(
        known,
        objection=f"expected {expected}: was its state restored, or set up anew? To follow it all the same, remove the "
        "dataset's directory here",
    )


def _turn(cycle: int | None, version: str | None, at_ns: int | None) -> Turn | None:
    if cycle is None or version is None or at_ns is None:
        return None
    return Turn(cycle, version, at_ns)


def due(known: Known, now_ns: int | None) -> Turn | None:
    """The turn that should be served at farm time ``now_ns`` (None: not known), wherever this node has got to."""
    if known.next is not None and now_ns is not None and known.next.at_ns <= now_ns:
        return known.next
    return known.active


def decide(known: Known, holding: Holding, now_ns: int | None) -> Decision:
    """What to do about a dataset at farm time ``now_ns``, which is None before the first clock comparison."""
    wanted = due(known, now_ns)
    coming = known.next if known.next is not None and known.next is not wanted else None
    if coming is not None and not _ahead(coming, holding.active):
        coming = None
    armed = coming if coming is not None and coming.version in holding.complete else None
    if wanted is not None and _ahead(wanted, holding.active):
        if wanted.version in holding.complete:
            flip: Turn | None = wanted
        else:
            if coming is not None and _is_near(known, now_ns):
                return Decision(arm=armed, stage=coming if armed is None else None)
            return Decision(arm=armed, stage=wanted)
    else:
        flip = None
    return Decision(flip=flip, arm=armed, stage=None if armed is not None else coming)


def _ahead(turn: Turn, active: Turn | None) -> bool:
    return active is None or turn.cycle > active.cycle


def _is_near(known: Known, now_ns: int | None) -> bool:
    """Whether the next turn is frozen (it can not be cancelled any more) and only a moment away."""
    if now_ns is None or known.next is None or known.freezes_at_ns is None:
        return False
    return known.freezes_at_ns <= now_ns and known.next.at_ns - now_ns <= NEAR_NS


def doubt(known: Known) -> str:
    """What may be wrong with a dataset of which the data server has never heard; the empty text when it has."""
    return "" if known.revision else "the data server has no such dataset: is it misspelt, or not published yet?"


def state(known: Known, holding: Holding, now_ns: int | None, *, staging: bool, failed: bool) -> str:
    """One word for how the node stands, of those that STANDING may say.

    ``staging``: a version is being brought in. ``failed``: the last attempt at it failed, the next one waits.
    """
    if failed or known.objection:
        return "failed"
    if holding.active is None:
        return "staging" if staging else "empty"
    wanted = due(known, now_ns)
    if wanted is not None and _ahead(wanted, holding.active):
        return "late"
    if staging:
        return "staging"
    coming = known.next
    if coming is None or coming is wanted or not _ahead(coming, holding.active):
        return "ready"
    return "staged" if coming.version in holding.complete else "staging"
