"""Which version is the active one at this very nanosecond, and the appointment with the next one.

There is one appointment per dataset: the instant, by this node's clock, at which the next version becomes the active
one. The web side compares the clock with it at each request, the readers in other processes find it in the pointer
file, and the trigger that renames the link waits for it. So all three flip at the same instant, to the accuracy of the
clock comparison alone.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.standing import Turn

HOLD_NS = 50_000_000
"""So close before the appointment, it does not move any more: no reader shall see the next version and then not."""


class MachineClock(Protocol):
    """The clock of this node, in nanoseconds."""

    def now_ns(self) -> int:
        """The node's time."""

    def machine_ns(self, local_ns: int) -> int:
        """The machine's real clock when this one shows ``local_ns``."""


class Reckoning(Protocol):
    """A clock comparison's result: farm time and this node's."""

    def local_ns(self, farm_ns: int) -> int:
        """The clock of this node at farm time ``farm_ns``."""


@attrs.frozen
class Remembered:
    """The reckoning by which an appointment was made before this start of the node: all that is left is its time."""

    at_ns: int

    def local_ns(self, farm_ns: int) -> int:
        """The time of the appointment, whatever its farm time is."""
        del farm_ns
        return self.at_ns


class Page(Protocol):
    """Where readers in other processes look."""

    def write(self, pointer: Pointer) -> None:
        """Make ``pointer`` what they find."""


class Pointing:
    """The active version of one dataset, and the next with its instant. Nothing here waits or blocks."""

    def __init__(self, clock: MachineClock, page: Page, boot_id: bytes) -> None:
        self._clock = clock
        self._page = page
        self._boot_id = boot_id
        self._active: Turn | None = None
        self._next: Turn | None = None
        self._flips_at_ns: int | None = None

    @property
    def active(self) -> Turn | None:
        """The turn that was swapped to; :meth:`current` may be ahead of it by the trigger's lateness."""
        return self._active

    @property
    def armed(self) -> Turn | None:
        """The turn that comes next, once it is complete and its instant is known."""
        return self._next

    def deadline_ns(self) -> int | None:
        """When the armed turn comes, by this node's clock; None without one."""
        return self._flips_at_ns

    def current(self) -> Turn | None:
        """The turn to serve at this moment."""
        if self._flips_at_ns is not None and self._clock.now_ns() >= self._flips_at_ns:
            return self._next
        return self._active

    def arm(self, turn: Turn | None, reckoning: Reckoning | None) -> bool:
        """Make ``turn`` the next one (None: nothing comes next); whether that changed anything.

        Called again with each new ``reckoning``, by which the appointment moves until shortly before it.
        """
        if turn is None or reckoning is None:
            if self._next is None or (turn == self._next and reckoning is None):
                return False
            self._next = self._flips_at_ns = None
            self._announce()
            return True
        if turn == self._next and self._is_close():
            return False
        flips_at_ns = reckoning.local_ns(turn.at_ns)
        if turn == self._next and flips_at_ns == self._flips_at_ns:
            return False
        changed = turn != self._next
        self._next, self._flips_at_ns = turn, flips_at_ns
        self._announce()
        return changed

    def serve(self, turn: Turn | None) -> None:
        """``turn`` is the active one from now on. An appointment with it, or with an earlier one, is kept by that."""
        self._active = turn
        if turn is not None and self._next is not None and self._next.cycle <= turn.cycle:
            self._next = self._flips_at_ns = None
        self._announce()

    def rehearse(self) -> None:
        """Go the way of :meth:`serve`, changing nothing: what it needs is then in memory when it counts."""
        self.current()
        self._announce()

    def _is_close(self) -> bool:
        return self._flips_at_ns is not None and self._flips_at_ns - self._clock.now_ns() <= HOLD_NS

    def _announce(self) -> None:
        active, coming, flips_at_ns = self._active, self._next, self._flips_at_ns
        self._page.write(
            Pointer(
                active_version=active.version if active else None,
                active_cycle=active.cycle if active else None,
                next_version=coming.version if coming else None,
                next_cycle=coming.cycle if coming else None,
                flips_at_machine_ns=None if flips_at_ns is None else self._clock.machine_ns(flips_at_ns),
                boot_id=self._boot_id,
            )
        )
