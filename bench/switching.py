"""A reader of a node's active version, in a process of its own: when did what it reads change?

Settings: the dataset's directory. Told ``[when, sharp]`` (CLOCK_MONOTONIC_RAW in nanoseconds, about), it looks again
and again around that time, and says ``[before, after]``: what it read was still the old version at ``before`` and was
the new one at ``after``. A sharp one looks without a pause, others every millisecond, so as not to take the machine's
time from those who are measured.
"""

from __future__ import annotations

import time

from bench import helper
from farmsyncd.reader import ActiveCache

MILLI = 1_000_000
AHEAD_NS = 5 * MILLI
PATIENCE_NS = 30_000 * MILLI


def now_ns() -> int:
    """The machine's clock."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def watch(cache: ActiveCache, at_ns: int, pause: float) -> tuple[int, int]:
    """The two instants between which the version changed. Raises RuntimeError if it does not."""
    before, old, _ = look(cache)
    while True:
        left = at_ns - AHEAD_NS - now_ns()
        if left > 0:
            time.sleep(min(left / 1e9, 0.05))  # but stay warm
        elif pause:
            time.sleep(pause)
        asked, version, told = look(cache)
        if version != old:
            return before, told
        if told > at_ns + PATIENCE_NS:
            raise RuntimeError(f"expected another version than {old} by now")
        before = asked


def look(cache: ActiveCache) -> tuple[int, str, int]:
    """The active version, between the two instants around asking for it."""
    asked = now_ns()
    with cache.snapshot() as snap:
        version = snap.version
    return asked, version, now_ns()


def main() -> None:
    """Watch each flip that is announced."""
    cache = ActiveCache(helper.settings())
    for at_ns, sharp in helper.orders():
        helper.say(watch(cache, at_ns, 0.0 if sharp else 0.001))


if __name__ == "__main__":
    main()
