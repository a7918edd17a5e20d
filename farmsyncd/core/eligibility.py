"""Which nodes are given what: a node's state from what is known of it, and the farm's choice from its nodes' states.

===============  ===================================  ==========================================
state            when                                 what it is given
===============  ===================================  ==========================================
``ready``        nothing stands against it            its sources, and new ones
``draining``     the operator said so, or the data    its sources
                 server does not see it
``stale``        it is known to have missed an        nothing: its sources are moved at their
                 activation                           next connection
``down``         checks or connections fail           nothing
``maintenance``  the operator said so                 nothing, whatever happens
===============  ===================================  ==========================================

The last eligible node is never taken away: when no node is ready, those of the next best state that there is get all,
old sources and new ones. That checks fail for a whole farm says more about the checks than about the farm.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import attrs


class State(enum.Enum):
    """A node's state, the best first."""

    READY = "ready"
    DRAINING = "draining"
    STALE = "stale"
    DOWN = "down"
    MAINTENANCE = "maintenance"


class Order(enum.Enum):
    """What the operator wants of a node; nothing in particular is ``READY``."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


TIERS = (State.READY, State.DRAINING, State.STALE, State.DOWN)
"""Who serves, the first of these states that there is: one in maintenance never does."""
KEEPS = frozenset({State.READY, State.DRAINING})
"""Who keeps its sources whatever the others do."""


@attrs.frozen
class Facts:
    """What is known of a node."""

    order: Order = Order.READY
    up: bool = True
    """What its checks, and the connections that it was given, say."""
    seen: bool = True
    """Whether the data server sees it; true for one that no data server was asked about."""
    missed: bool = False
    """Whether it is known to have missed an activation; see :func:`missed`."""


def state_of(facts: Facts) -> State:
    """The state of a node."""
    if facts.order is Order.MAINT:
        return State.MAINTENANCE
    if not facts.up:
        return State.DOWN
    if facts.missed:
        return State.STALE
    if facts.order is Order.DRAIN or not facts.seen:
        return State.DRAINING
    return State.READY


def best(states: Iterable[State]) -> State | None:
    """The state of those nodes that serve; None when there is none but in maintenance."""
    present = set(states)
    return next((tier for tier in TIERS if tier in present), None)


@attrs.frozen
class Ruling:
    """Who is given what. ``state`` is what those are in that get new sources; READY on a good day."""

    state: State | None
    takes: frozenset[str]
    """New sources."""
    keeps: frozenset[str]
    """Their own sources."""


def rule(states: Mapping[str, State]) -> Ruling:
    """The ruling for a farm whose nodes are in these states."""
    chosen = best(states.values())
    takes = frozenset(name for name, state in states.items() if state is chosen)
    return Ruling(chosen, takes, takes | {name for name, state in states.items() if state in KEEPS})


def those(count: int, state: State) -> str:
    """So many nodes in a state, for people."""
    return f"the one that is {state.value}" if count == 1 else f"the {count} that are {state.value}"


@attrs.frozen
class Activation:
    """A dataset's active cycle, and when it became so, in farm time."""

    cycle: int
    version: str
    at_ns: int


def missed(
    active: Activation, cycle: int | None, version: str | None, seen_ns: int, farm_ns: int, grace_ns: int
) -> bool:
    """Whether a node, with this ``cycle`` and ``version`` active, is known at ``farm_ns`` to have missed ``active``.

    ``seen_ns`` is when the node last said so: what it said before the activation shows nothing. While less than
    ``grace_ns`` has passed the farm is flipping, and nobody has missed anything.
    """
    if version == active.version or (cycle is not None and cycle >= active.cycle):
        return False
    return farm_ns - active.at_ns > grace_ns and seen_ns > active.at_ns
