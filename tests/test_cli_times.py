"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.cli import options, show
from farmsyncd.cli.times import NS, LocalZone, When, from_ns, read_span, read_time, shown, span_shown
from farmsyncd.errors import BadInput

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 14, 30, tzinfo=BERLIN)  # a Saturday


@pytest.fixture
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The zone of this process, as a user sets it with ``TZ``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def utc(*parts: int) -> When:
    return When("at", int(datetime(*parts, tzinfo=UTC).timestamp()) * NS)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("2026-11-22T06:00:00+01:00", utc(2026, 11, 22, 5)),
        ("2026-11-22T06:00Z", utc(2026, 11, 22, 6)),
        ("2026-11-22 06:00", utc(2026, 11, 22, 5)),
        ("tomorrow 06:00", utc(2026, 11, 22, 5)),
        ("Tomorrow 6:00:30", utc(2026, 11, 22, 5, 0, 30)),
        ("today 18:00", utc(2026, 11, 21, 17)),
        ("18:00", utc(2026, 11, 21, 17)),
        ("06:00", utc(2026, 11, 22, 5)),
        ("monday 06:00", utc(2026, 11, 23, 5)),
        ("saturday 06:00", utc(2026, 11, 28, 5)),
        ("saturday 18:00", utc(2026, 11, 21, 17)),
        ("tomorrow   06:00", utc(2026, 11, 22, 5)),
        ("+90s", When("in", 90 * NS)),
        ("+1h30m", When("in", 5_400 * NS)),
        ("now", When("now")),
    ],
)
def test_times_that_people_write(text: str, meaning: When) -> None:
    assert read_time(text, NOW) == meaning


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "2026-13-01T00:00", "2026-11-22", "+", "+5 parsecs", "someday 06:00", "06:00 06:00"]
)
def test_what_is_no_time_is_told_what_a_time_looks_like(text: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        read_time(text, NOW)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+01:00", "9999-12-31T23:59-23:00", "0000-00-00", "2262-06-01 00:00"])
def test_times_at_the_edges_of_the_calendar_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        read_time(text, NOW)


@pytest.mark.parametrize("text", ["2026-11-21T14:29:59+01:00", "today 06:00", "1999-01-01 00:00"])
def test_a_time_in_the_past_is_refused_and_shown_as_it_was_understood(text: str) -> None:
    with pytest.raises(BadInput, match=r"has passed"):
        read_time(text, NOW)


def test_local_times_that_summer_time_skips_or_repeats_are_refused() -> None:
    spring = datetime(2027, 3, 1, tzinfo=BERLIN)
    with pytest.raises(BadInput, match="does not exist"):
        read_time("2027-03-28 02:30", spring)
    with pytest.raises(BadInput, match="comes twice"):
        read_time("2027-10-31 02:30", spring)
    assert read_time("2027-10-31T02:30+02:00", spring) == utc(2027, 10, 31, 0, 30)


def test_a_time_after_the_repeated_hour_is_to_come_although_the_clock_shows_less() -> None:
    first = datetime(2027, 10, 31, 2, 45, tzinfo=BERLIN)
    assert read_time("2027-10-31T02:30+01:00", first) == utc(2027, 10, 31, 1, 30)
    assert read_time("03:00", first) == utc(2027, 10, 31, 2)


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
@pytest.mark.parametrize(("month", "hour", "name"), [(1, 5, "CET"), (7, 4, "CEST")])
def test_what_the_user_types_and_sees_is_in_the_offset_of_that_day_not_of_today(
    zone: str, month: int, hour: int, name: str
) -> None:
    year = show.now().year + 1
    assert options._when(f"{year}-{month:02}-02 06:00", None) == utc(year, month, 2, hour)
    moment = datetime(year, month, 2, hour, tzinfo=UTC)
    said = show.moment(int(moment.timestamp()) * NS, show.now())
    assert f"{year}-{month:02}-02 06:00:00 {name} ({year}-{month:02}-02 {hour:02}:00:00 UTC)" in said


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
def test_skipped_and_repeated_local_times_are_refused_in_the_users_own_zone_too(zone: str) -> None:
    now = datetime(2027, 3, 1, tzinfo=LocalZone())
    with pytest.raises(BadInput, match="does not exist"):
        read_time("2027-03-28 02:30", now)
    with pytest.raises(BadInput, match="comes twice"):
        read_time("2027-10-31 02:30", now)
    assert read_time("2027-03-28 03:00", now) == utc(2027, 3, 28, 1)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"], indirect=True
)
def test_the_users_zone_has_the_offsets_of_the_zones_own_table(zone: str) -> None:
    users, table = LocalZone(), ZoneInfo(zone)
    for hours in range(24 * 366):
        moment = datetime(2027, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=hours)
        here, there = moment.astimezone(users), moment.astimezone(table)
        assert (here.replace(tzinfo=None), here.fold) == (there.replace(tzinfo=None), there.fold)
        assert (here.utcoffset(), here.tzname()) == (there.utcoffset(), there.tzname())
        assert here.astimezone(UTC) == moment


@given(st.integers(1, 10**6))
def test_spans_in_seconds_mean_the_same_with_and_without_a_unit(seconds: int) -> None:
    assert read_span(str(seconds)) == read_span(f"{seconds}s") == seconds * NS


@pytest.mark.parametrize("text", ["", "-5", "1h 30x", "s", "1e3"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        read_span(text)


def test_times_are_shown_in_local_time_and_utc() -> None:
    assert shown(NOW, BERLIN) == "Sat 2026-11-21 14:30:00 CET (2026-11-21 13:30:00 UTC)"
    assert shown(NOW, UTC) == "Sat 2026-11-21 13:30:00 UTC"
    assert from_ns(1_500_000_000 * NS) == datetime(2017, 7, 14, 2, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (850, "850 ns"),
        (1_250_000, "1.25 ms"),
        (-42_000, "-42 µs"),
        (90 * NS, "1 min 30 s"),
        (5 * NS // 2, "2.5 s"),
        (7_260 * NS, "2 h 1 min"),
        (200_000 * NS, "2 days 7 h"),
        (312_000, "312 µs"),
    ],
)
def test_spans_are_shown_with_few_figures(ns: int, text: str) -> None:
    assert span_shown(ns) == text


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_moment_survives_the_wire(moment: datetime) -> None:
    when = read_time(moment.isoformat(), moment - timedelta(seconds=1))
    assert from_ns(when.ns) == moment
