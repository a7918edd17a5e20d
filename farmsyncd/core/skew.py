"""A clock that is wrong on purpose: how ``--skew SECONDS[,PPM]`` is read, and the arithmetic of such a clock.

The clock shows ``machine + shift + machine * ppm / 1e6``: whole nanoseconds, rounded down.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import attrs

GIGA = 1_000_000_000
#: What the comparison allows an oscillator, besides what the machine's own is off by.
MOST_PPM = 500
MOST_SECONDS = 100 * 366 * 86400


@attrs.frozen
class Skew:
    """How wrong a clock is: shifted by ``shift_ns``, and gaining ``rate_ppb`` parts per billion."""

    shift_ns: int = 0
    rate_ppb: int = 0

    def shown_ns(self, machine_ns: int) -> int:
        """What the wrong clock shows when the machine's shows ``machine_ns``."""
        return machine_ns + self.shift_ns + machine_ns * self.rate_ppb // GIGA

    def machine_ns(self, shown_ns: int) -> int:
        """The first machine time at which the wrong clock shows ``shown_ns`` or more."""
        return -((self.shift_ns - shown_ns) * GIGA // (GIGA + self.rate_ppb))


def parse_skew(text: str) -> Skew:
    """Read ``SECONDS[,PPM]``, both decimal numbers with an optional sign. Raises ValueError that says what is wrong."""
    seconds, comma, ppm = text.partition(",")
    shift = _number(seconds, "seconds", MOST_SECONDS, text)
    rate = _number(ppm, "ppm", MOST_PPM, text) if comma else Decimal(0)
    return Skew(int(shift * GIGA), int(rate * 1000))


def _number(text: str, what: str, most: int, whole: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"expected SECONDS[,PPM] such as 3600 or -12.5,200, and {whole!r} was given")
    if abs(number) > most:
        raise ValueError(f"expected at most {most} {what} either way, and {whole!r} was given")
    return number
