"""Times as people write them, and as they are shown back.

Accepted: ISO 8601 with or without a zone (``2027-01-31T06:00+01:00``, ``2027-01-31 06:00``: without one it is local
time), ``+90s`` and ``+1h30m`` from now, ``06:00`` (the next one), ``today 18:00``, ``tomorrow 06:00`` and
``monday 06:00``. A local time that a change of summer time skips or repeats is refused: it has no one meaning.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import attrs

from farmsyncd.core.when import LATEST_NS
from farmsyncd.errors import BadInput

NS = 1_000_000_000
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "min": 60, "s": 1, "sec": 1, "ms": 0.001}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(d|h|min|m(?!s)|sec|s|ms)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST_YEAR, _LAST_YEAR = 1900, 2300  # what lies beyond cannot be told in every zone, and is refused in any case
FORMS = "2027-01-31T06:00:00+01:00, 2027-01-31 06:00, 06:00, tomorrow 06:00, monday 06:00 or +90s"


class LocalZone(tzinfo):
    """The zone of this machine's user, with its changes of summer time; it follows ``TZ``.

    ``datetime.astimezone()`` knows the offset of one moment only, which is the wrong one on the other side of a change.
    """

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        """What the zone is ahead of UTC, at this local time."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, dt: datetime | None) -> timedelta | None:  # noqa: ARG002 - the interface's
        """Not known, and not needed."""
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        """The zone's name at this local time: ``CET`` or ``CEST``."""
        return None if dt is None else dt.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, dt: datetime) -> datetime:
        """The local time of a moment that is given in UTC."""
        there = dt.replace(tzinfo=UTC).astimezone()
        local = there.replace(tzinfo=self, fold=0)
        return local if local.utcoffset() == there.utcoffset() else local.replace(fold=1)


@attrs.frozen
class When:
    """A moment that was asked for: ``now``, a span from now (``in``), or a moment of UTC (``at``), in nanoseconds."""

    kind: str
    ns: int = 0

    def word(self) -> str:
        """As the protocol spells it."""
        return self.kind if self.kind == "now" else f"{self.kind}:{self.ns}"


def read_span(text: str) -> int:
    """A length of time in nanoseconds: ``90``, ``1.5``, ``90s``, ``1h30m``. BadInput for anything else, or too long."""
    compact = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return _bounded(float(compact), text)
    parts = _SPAN.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise BadInput(f"expected a length of time such as 90, 90s or 1h30m, and found {text!r}")
    return _bounded(sum(float(number) * _UNITS[unit] for number, unit in parts), text)


def _bounded(seconds: float, text: str) -> int:
    if seconds * NS > LATEST_NS:
        raise BadInput(f"expected a length of time of less than 292 years, and found {text!r}")
    return round(seconds * NS)


def read_time(text: str, now: datetime) -> When:
    """The moment that ``text`` names, seen from ``now`` (an aware time in the user's zone).

    BadInput says which forms are understood, or that the moment has passed.
    """
    text = " ".join(text.split())
    if text.lower() == "now":
        return When("now")
    if text.startswith("+"):
        return When("in", read_span(text[1:]))
    moment = _moment(text, now)
    if not _is_ahead(moment, now):
        raise BadInput(f"expected a time to come, and {text!r} is {shown(moment, now.tzinfo)}, which has passed")
    ns = round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1_000
    if ns > LATEST_NS:
        raise BadInput(f"expected a time before the year 2262, and {text!r} is {shown(moment, now.tzinfo)}")
    return When("at", ns)


def _moment(text: str, now: datetime) -> datetime:
    day, _, clock = text.lower().rpartition(" ")
    if (found := _CLOCK.fullmatch(clock)) and (not day or day in ("today", "tomorrow", *_DAYS)):
        return _on_day(day, found, text, now)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"expected a time such as {FORMS}, and found {text!r}") from None
    if not re.search(r"\d{1,2}:\d{2}|T\d{2}", text):
        raise BadInput(f"expected a time of day too, such as {text}T06:00, and found {text!r}")
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise BadInput(f"expected a time to come, before the year 2262, and found {text!r}")
    return moment if moment.tzinfo is not None else _local(moment, now.tzinfo, text)


def _on_day(day: str, clock: re.Match[str], text: str, now: datetime) -> datetime:
    try:
        at = time(int(clock[1]), int(clock[2]), int(clock[3] or 0))
    except ValueError:
        raise BadInput(f"expected a time of day between 00:00 and 23:59, and found {text!r}") from None
    today = now.date()
    if day in _DAYS:
        ahead = (_DAYS.index(day) - today.weekday()) % 7
        return _next(today + timedelta(days=ahead), at, timedelta(days=7), text, now)
    if not day:
        return _next(today, at, timedelta(days=1), text, now)
    return _local(datetime.combine(today + timedelta(days=day == "tomorrow"), at), now.tzinfo, text)


def _next(first: date, at: time, step: timedelta, text: str, now: datetime) -> datetime:
    moment = _local(datetime.combine(first, at), now.tzinfo, text)
    return moment if _is_ahead(moment, now) else _local(datetime.combine(first + step, at), now.tzinfo, text)


def _is_ahead(moment: datetime, now: datetime) -> bool:
    # In UTC: of two times of one zone, Python compares what clocks on the wall show.
    return moment.astimezone(UTC) > now.astimezone(UTC)


def _local(naive: datetime, zone: tzinfo | None, text: str) -> datetime:
    readings = [naive.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    if readings[0].utcoffset() == readings[1].utcoffset():
        return readings[0]
    back = readings[0].astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    what = "comes twice" if back == naive else "does not exist"
    raise BadInput(f"{text!r} {what} here, as summer time begins or ends: write it with its offset, as in +01:00")


def shown(moment: datetime, zone: tzinfo | None) -> str:
    """A moment for people: in local time and in UTC."""
    local, utc = moment.astimezone(zone), moment.astimezone(UTC)
    here = f"{local:%a %Y-%m-%d %H:%M:%S} {local.tzname()}"
    return here if local.utcoffset() == timedelta(0) else f"{here} ({utc:%Y-%m-%d %H:%M:%S} UTC)"


def from_ns(utc_ns: int) -> datetime:
    """The aware time of ``utc_ns`` nanoseconds since the Unix epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=utc_ns // 1_000)


def span_shown(ns: int) -> str:
    """A length of time for people, with two or three significant figures: ``850 ns``, ``1.25 ms``, ``3 min 20 s``."""
    sign, ns = ("-" if ns < 0 else ""), abs(ns)
    for limit, divisor, unit in ((1_000, 1, "ns"), (1_000_000, 1_000, "µs"), (NS, 1_000_000, "ms"), (60 * NS, NS, "s")):
        if ns < limit:
            value = ns / divisor
            return f"{sign}{value:.0f} {unit}" if value >= 100 or divisor == 1 else f"{sign}{value:.3g} {unit}"
    seconds = round(ns / NS)
    if seconds < 3_600:
        return f"{sign}{seconds // 60} min {seconds % 60} s"
    if seconds < 172_800:
        return f"{sign}{seconds // 3_600} h {seconds % 3_600 // 60} min"
    return f"{sign}{seconds // 86_400} days {seconds % 86_400 // 3_600} h"
