"""A turn ahead of all ordinary processes, for the tenth of a second in which it counts."""

from __future__ import annotations

import os


class Urgency:
    """Raises the calling thread above what else the machine does, and lowers it again, where the system allows.

    Without the right to (CAP_SYS_NICE; ``LimitRTPRIO=1`` in a systemd unit) it does nothing: a busy machine may then
    delay a flip by some milliseconds. Threads and processes that are started meanwhile are not raised.
    """

    def __init__(self) -> None:
        self._allowed = True
        self._before: int | None = None  # the policy to go back to, while raised

    @property
    def raised(self) -> bool:
        """Whether this thread goes ahead of the others."""
        return self._before is not None

    def begin(self) -> None:
        """Go ahead of the others."""
        if not self._allowed or self.raised:
            return
        before = os.sched_getscheduler(0)
        if before not in (os.SCHED_OTHER, os.SCHED_BATCH):
            return  # somebody has decided about this process already
        try:
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        except OSError:
            self._allowed = False
        else:
            self._before = before

    def end(self) -> None:
        """Be like the others again."""
        if self._before is not None:
            os.sched_setscheduler(0, self._before, os.sched_param(0))
            self._before = None
