"""When a cycle is to activate, as it travels in PUBLISH, FORECAST and ROLLBACK.

``now`` is as soon as the freeze lead allows, ``in:NANOSECONDS`` counts from the data server's now, and
``at:NANOSECONDS`` is UTC since the Unix epoch: the data server turns it into farm time, once.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

import attrs

from farmsyncd.core.refusal import Refused

_SPELLING = re.compile(r"now|(in|at):(0|[1-9][0-9]{0,18})", re.ASCII)
LATEST_NS = 2**63 - 1  # what the catalog's integers hold, in the year 2262


class WhenKind(enum.Enum):
    """From where the time counts."""

    NOW = "now"
    IN = "in"
    AT = "at"
    FARM = "farm"


@attrs.frozen
class When:
    """A wished time: ``ns`` is a delay for IN, UTC for AT, farm time for FARM, which never travels; and 0 for NOW."""

    kind: WhenKind
    ns: int = 0

    def spell(self) -> str:
        """The word for it, as :func:`read` takes it."""
        return "now" if self.kind is WhenKind.NOW else f"{self.kind.value}:{self.ns}"

    def farm_ns(self, now_ns: int, lead_ns: int, from_utc_ns: Callable[[int], int]) -> int:
        """The farm time that is meant, by a data server whose farm time is ``now_ns``.

        Raises Refused for a time that has passed, and for one beyond what can be kept.
        """
        if self.kind is WhenKind.NOW:
            return now_ns + lead_ns
        if self.kind is WhenKind.FARM:
            wished_ns = self.ns
        else:
            wished_ns = now_ns + self.ns if self.kind is WhenKind.IN else from_utc_ns(self.ns)
        if wished_ns <= now_ns:
            late = (now_ns - wished_ns) / 1e9
            raise Refused("bad", f"expected an activation time in the future, and this one passed {late:.3f} s ago")
        if wished_ns > LATEST_NS:
            raise Refused("bad", "expected an activation time before the year 2262; choose an earlier one")
        return wished_ns


def read(text: str) -> When:
    """The time that ``text`` spells. Raises Refused for anything but now, in:NANOSECONDS and at:NANOSECONDS."""
    match = _SPELLING.fullmatch(text)
    if match is None:
        raise Refused("bad", f"expected now, in:NANOSECONDS or at:NANOSECONDS, and {text[:40]!r} came")
    return When(WhenKind(match[1]), int(match[2])) if match[1] else When(WhenKind.NOW)
