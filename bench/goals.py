"""What is promised, and whether it was kept; and the few statistics that it takes to say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

Say = Callable[[str], None]


@attrs.frozen
class Goal:
    """One promise: what was measured, what was found and what was wanted, in words, and whether it is met."""

    what: str
    found: str
    wanted: str
    met: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.found}; the goal is {self.wanted}: {'met' if self.met else 'MISSED'}"


def at_most(what: str, found: float, most: float, unit: str = "") -> Goal:
    """A figure that must not be larger than ``most``."""
    return Goal(what, _spell(found, unit), f"at most {_spell(most, unit)}", found <= most)


def at_least(what: str, found: float, least: float, unit: str = "") -> Goal:
    """A figure that must not be smaller than ``least``."""
    return Goal(what, _spell(found, unit), f"at least {_spell(least, unit)}", found >= least)


def _spell(figure: float, unit: str) -> str:
    return f"{figure:.3g} {unit}".rstrip()


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least of ``values`` that ``percent`` of them do not exceed."""
    if not values:
        raise ValueError("expected at least one value")
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def median(values: Sequence[float]) -> float:
    """The value in the middle; of an even number of them, the mean of the two in the middle."""
    if not values:
        raise ValueError("expected at least one value")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def ratio(ours: float, theirs: float) -> float:
    """``ours`` over ``theirs``; infinite where theirs is nothing."""
    return ours / theirs if theirs else math.inf
