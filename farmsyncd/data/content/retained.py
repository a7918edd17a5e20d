"""Which versions of the farm's datasets stay at the data server."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from farmsyncd.core.cycle import Course
from farmsyncd.core.retention import recent

Held = tuple[str, str]
"""A dataset and a version of it."""


def droppable(
    held: Iterable[Held],
    courses: Iterable[Course],
    activations: Mapping[str, Sequence[str]],
    others: Collection[Held],
    keep: int,
) -> list[Held]:
    """Those of ``held`` that may go, in their order.

    What is active or pending stays, the last ``keep`` that were active (``activations``: by dataset, oldest first), and
    the ``others``: pinned, or still with a node.
    """
    kept = set(others)
    for course in courses:
        for cycle in (course.active, course.pending):
            if cycle is not None:
                kept.add((course.dataset, cycle.version))
        kept.update((course.dataset, version) for version in recent(activations.get(course.dataset, ()), keep))
    return [one for one in held if one not in kept]
