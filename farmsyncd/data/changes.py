"""News of courses that moved, from the keeper to whoever acts upon it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.logger import Logger

from farmsyncd.core.cycle import Course, Step


@attrs.frozen
class Change:
    """A course that is new; ``step`` is None when another data server on the same catalog moved it."""

    course: Course
    step: Step | None


class Changes:
    """Calls its listeners, in the order in which they came, with each :class:`Change`.

    A listener that fails is logged and harms no other.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call ``listener`` with every change from now on."""
        self._listeners.append(listener)

    def tell(self, change: Change) -> None:
        """Let everybody know."""
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # the course has changed already, and the others must hear of it
                self._log.failure("A change of {dataset} was not followed up", dataset=change.course.dataset)
