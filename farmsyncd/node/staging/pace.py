"""How fast staging may go: a rate limit, as a plain bucket of bytes."""

from __future__ import annotations

import attrs

_SECOND_NS = 1_000_000_000


@attrs.define
class Pace:
    """At most ``rate`` bytes per second, averaged over a second; no limit when ``rate`` is 0.

    What has arrived cannot be refused any more, so :meth:`took` only says how long to rest afterwards.
    """

    rate: int
    _debt: int = 0
    _as_of_ns: int | None = None

    @property
    def sip(self) -> int:
        """How much to read at once, so that the rate is kept to within a moment."""
        return max(4096, min(1024 * 1024, self.rate // 20))

    def took(self, amount: int, now_ns: int) -> float:
        """``amount`` bytes have come at ``now_ns``: the seconds for which no more should be read, often 0."""
        if self.rate <= 0:
            return 0.0
        if self._as_of_ns is not None:
            paid = (now_ns - self._as_of_ns) * self.rate // _SECOND_NS
            self._debt = max(0, self._debt - paid)
        self._as_of_ns = now_ns
        self._debt += amount
        allowance = self.rate // 10
        return max(0.0, (self._debt - allowance) / self.rate)
