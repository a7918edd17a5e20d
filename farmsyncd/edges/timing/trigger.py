"""Fires at an instant of the local clock: not a microsecond early, and as little late as a busy machine allows.

Far from it, a timer is armed at most a second ahead and the clock read anew at each waking, since the deadline may
move with every comparison and timers may run on another clock. Half a second before, the path of the swap is rehearsed:
a process that slept for hours pays milliseconds for its cold pages. From then on it wakes often enough to stay warm,
and for the last tenth of a second it goes ahead of what else the machine does, where that is allowed. The last two
milliseconds are slept and the last fraction of one is spun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from farmsyncd.edges.timing.clocks import LocalClock
from farmsyncd.edges.timing.urgency import Urgency

MILLI: Final = 1_000_000
LONGEST_NS: Final = 1000 * MILLI
REHEARSAL_NS: Final = 500 * MILLI
WARM_NS: Final = 100 * MILLI
URGENT_NS: Final = 110 * MILLI  # more than one waking before the last
STRETCH_NS: Final = 2 * MILLI
SPIN_NS: Final = MILLI * 2 // 5


def _nothing() -> None:
    pass


class Trigger:
    """Calls ``fire(due_ns)`` once, when ``clock`` shows what ``due`` says.

    ``due`` gives the deadline in the clock's nanoseconds; it may move until the last two milliseconds, and is None
    while there is none. ``rehearse`` is called about half a second before, again if the deadline moved far away since;
    what it raises is logged. ``fire`` is called from the reactor, or from :meth:`start` or :meth:`check` when the
    deadline has passed already; it goes ahead of all the machine's other work, so it does the swap and nothing else.
    ``wakes`` should be a SteadyTime: the reactor's own timers follow the wall clock.
    """

    log = Logger()

    def __init__(
        self,
        clock: LocalClock,
        wakes: IReactorTime,
        due: Callable[[], int | None],
        fire: Callable[[int], None],
        rehearse: Callable[[], None] = _nothing,
        sleep: Callable[[float], None] = time.sleep,
        urgency: Urgency | None = None,
    ) -> None:
        self._clock = clock
        self._wakes = wakes
        self._due = due
        self._fire = fire
        self._rehearse = rehearse
        self._sleep = sleep
        self._urgency = urgency if urgency is not None else Urgency()
        self._call: IDelayedCall | None = None
        self._rehearsed = False
        self._running = False

    @property
    def running(self) -> bool:
        """Whether it waits: started, and neither fired nor stopped."""
        return self._running

    def start(self) -> None:
        """Begin to wait; fires at once when the deadline has passed."""
        self._running = True
        self.check()

    def stop(self) -> None:
        """Wait no more. Harmless after it has fired."""
        self._running = False
        self._disarm()
        self._urgency.end()

    def check(self) -> None:
        """Look at the deadline now: when it is known to have moved. Otherwise that happens within a second."""
        if not self._running:
            return
        self._disarm()
        due = self._deadline()
        if due is not None and self._wants_rehearsal(due):
            self._rehearsed = True
            try:
                self._rehearse()
            except Exception:
                self.log.failure("the rehearsal of a swap failed")
            due = self._deadline()
        if not self._running:
            return  # the rehearsal stopped it
        left = LONGEST_NS if due is None else due - self._clock.now_ns()
        if left > URGENT_NS:
            self._urgency.end()
        else:
            self._urgency.begin()
        if due is None or left > STRETCH_NS:
            self._call = self._wakes.callLater(self._nap_ns(left) / 1e9, self.check)
            return
        self._wait_precisely(due)
        self._running = False
        try:
            self._fire(due)
        finally:
            self._urgency.end()

    def _deadline(self) -> int | None:
        try:
            return self._due()
        except Exception:
            self.log.failure("the deadline of a swap could not be told; asking again")
            return None

    def _wants_rehearsal(self, due: int) -> bool:
        left = due - self._clock.now_ns()
        if left > 2 * REHEARSAL_NS:
            self._rehearsed = False
        return STRETCH_NS < left <= REHEARSAL_NS and not self._rehearsed

    def _nap_ns(self, left: int) -> int:
        if left > REHEARSAL_NS:
            return min(LONGEST_NS, left - REHEARSAL_NS)
        return min(WARM_NS, left - STRETCH_NS)

    def _wait_precisely(self, due: int) -> None:
        while (left := due - self._clock.now_ns()) > 0:
            if left > SPIN_NS:
                self._sleep((left - SPIN_NS) / 1e9)

    def _disarm(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
