"""The clocks that a node reads: the machine's raw one, and one that is wrong on purpose."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from farmsyncd.core.skew import Skew


class LocalClock(Protocol):
    """A clock that only runs forward, in nanoseconds since an instant of its own."""

    def now_ns(self) -> int:
        """What the clock shows."""
        ...

    def machine_ns(self, local_ns: int) -> int:
        """What this machine's CLOCK_MONOTONIC_RAW shows when this clock shows ``local_ns``."""
        ...


class RawClock:
    """CLOCK_MONOTONIC_RAW: the bare oscillator, which nobody steps or slews. It stands while the machine sleeps."""

    def now_ns(self) -> int:
        """What the clock shows."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    def machine_ns(self, local_ns: int) -> int:
        """The same: this is the machine's clock."""
        return local_ns


class SkewedClock:
    """A clock that shows another one wrongly, for rehearsals of a farm in which each clock is wrong in its own way."""

    def __init__(self, base: LocalClock, skew: Skew) -> None:
        self._base = base
        self._skew = skew

    def now_ns(self) -> int:
        """What the clock shows."""
        return self._skew.shown_ns(self._base.now_ns())

    def machine_ns(self, local_ns: int) -> int:
        """The first instant, by the machine's clock, at which this one shows ``local_ns``."""
        return self._base.machine_ns(self._skew.machine_ns(local_ns))


def slept_ns() -> int:
    """How long this machine has been suspended since it booted: CLOCK_BOOTTIME counts that, CLOCK_MONOTONIC does not.

    Right to the time between two readings, of which the closest of three pairs is taken.
    """
    closest = None
    for _ in range(3):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        pair = (after - before, boot - before)
        closest = pair if closest is None or pair < closest else closest
    assert closest is not None
    return closest[1]


def boot_id() -> str:
    """What tells this run of the machine's raw clock from every other: the boot, and the time namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/time")
    return f"{boot}:{namespace.stat().st_ino}" if namespace.exists() else boot
