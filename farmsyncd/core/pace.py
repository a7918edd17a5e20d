"""A bounded pace: a token bucket, by a clock that is handed in."""

from __future__ import annotations

import attrs

_SECOND_NS = 1_000_000_000


@attrs.define
class Pace:
    """At most ``burst`` at once, and ``rate`` per second over time. Times in nanoseconds of any clock."""

    rate: float
    burst: float
    _tokens: float = attrs.field(init=False)
    _as_of_ns: int | None = None

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def take(self, now_ns: int) -> bool:
        """Whether one more may go now; it has gone then."""
        self._fill(now_ns)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait_ns(self, now_ns: int) -> int:
        """How long until the next one may go."""
        self._fill(now_ns)
        return 0 if self._tokens >= 1.0 else int((1.0 - self._tokens) / self.rate * _SECOND_NS) + 1

    def _fill(self, now_ns: int) -> None:
        if self._as_of_ns is not None:
            self._tokens = min(self.burst, self._tokens + max(0, now_ns - self._as_of_ns) * self.rate / _SECOND_NS)
        self._as_of_ns = now_ns
