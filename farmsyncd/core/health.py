"""Whether a node is up: what checks of it said, and what became of the connections that it was given.

Two kinds of news, and what each may do:

* a *check* is made for this purpose. ``fall`` bad ones in a row take a node down, ``rise`` good ones bring it back;
* a *connection* of a client shows a node that does not take it. ``fall`` in a row take it down, too; but that a node
  takes connections does not show that it is well, so where there are checks only these bring it back. Where there are
  none, a connection that it takes does, or time: after ``retry_ns`` it is tried again, and one failure is enough then.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Patience:
    """How much it takes. ``checks`` says whether there are checks; ``retry_ns`` counts only where there are none."""

    rise: int
    fall: int
    retry_ns: int
    checks: bool


@attrs.define
class Health:
    """Of one node. Each of its methods but ``up`` tells whether that has changed."""

    patience: Patience
    up: bool = True
    """A node is up until the contrary is seen: a balancer that starts must move nobody."""
    reason: str = ""
    """What was wrong the last time."""
    retry_at_ns: int | None = None
    """When a node that is down is tried again, where nothing else brings it back."""
    refused_in_row: int = 0
    _bad_in_row: int = 0
    _good_in_row: int = 0

    def checked(self, good: bool, reason: str = "") -> bool:
        """A check has ended."""
        if good:
            self._bad_in_row = 0
            self._good_in_row += 1
            return not self.up and self._good_in_row >= self.patience.rise and self._rise()
        self._good_in_row = 0
        self._bad_in_row += 1
        self.reason = reason
        return self.up and self._bad_in_row >= self.patience.fall and self._go_down()

    def refused(self, reason: str, now_ns: int) -> bool:
        """The node did not take a connection."""
        self.refused_in_row += 1
        self.reason = reason
        if self.refused_in_row < self.patience.fall:
            return False
        if not self.patience.checks:
            self.retry_at_ns = now_ns + self.patience.retry_ns
        return self.up and self._go_down()

    def connected(self) -> bool:
        """The node took a connection."""
        self.refused_in_row = 0
        return not self.up and not self.patience.checks and self._rise()

    def retry(self, now_ns: int) -> bool:
        """Time has passed."""
        if self.up or self.retry_at_ns is None or now_ns < self.retry_at_ns:
            return False
        self._rise()
        self.refused_in_row = self.patience.fall - 1
        return True

    def _rise(self) -> bool:
        self.up = True
        self.retry_at_ns = None
        self.refused_in_row = self._bad_in_row = 0
        return True

    def _go_down(self) -> bool:
        self.up = False
        self._good_in_row = 0
        return True
