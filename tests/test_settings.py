"""The kinds of values in a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.edges.settings import (
    DURATION,
    FLAG,
    HOST_PORT,
    INTEGER,
    NAME,
    NUMBER,
    PATH,
    RATE,
    SIZE,
    TEXT,
    Faults,
    Kind,
    bounded,
    choice,
    listing,
    shown,
)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (DURATION, "5s", 5_000_000_000),
        (DURATION, "250ms", 250_000_000),
        (DURATION, "1.5us", 1_500),
        (DURATION, "1h 30m", 5_400_000_000_000),
        (DURATION, "1h30min", 5_400_000_000_000),
        (DURATION, "2d", 172_800_000_000_000),
        (DURATION, "0", 0),
        (DURATION, 0, 0),
        (SIZE, "4MiB", 4 * 1024 * 1024),
        (SIZE, "4 MiB", 4 * 1024 * 1024),
        (SIZE, "1.5kB", 1500),
        (SIZE, 4096, 4096),
        (SIZE, "4096", 4096),
        (RATE, "20MiB/s", 20 * 1024 * 1024),
        (RATE, "20MiB", 20 * 1024 * 1024),
        (HOST_PORT, "10.0.0.5:8080", ("10.0.0.5", 8080)),
        (HOST_PORT, "shop.example:80", ("shop.example", 80)),
        (HOST_PORT, "[::1]:8080", ("::1", 8080)),
        (INTEGER, 7, 7),
        (INTEGER, "-7", -7),
        (NUMBER, "0.25", 0.25),
        (NUMBER, 2, 2.0),
        (FLAG, True, True),
        (FLAG, 1, True),
        (FLAG, False, False),
        (NAME, "web-1.shop", "web-1.shop"),
        (TEXT, "any text", "any text"),
        (PATH, "/srv/site", Path("/srv/site")),
        (choice("auto", "never"), "never", "never"),
        (listing(NAME), ["a", "b"], ("a", "b")),
        (listing(NAME), "a", ("a",)),
        (listing(NAME), [], ()),
        (bounded(DURATION, "1s", "1m"), "1m", 60_000_000_000),
    ],
)
def test_a_value_is_read_in_the_units_of_the_code(kind: Kind[object], value: object, expected: object) -> None:
    assert kind.read(value) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DURATION, "5"),
        (DURATION, 5),
        (DURATION, "5 parsecs"),
        (DURATION, "-5s"),
        (DURATION, "0.5ns"),
        (DURATION, ""),
        (DURATION, True),
        (SIZE, "4 pounds"),
        (SIZE, -1),
        (SIZE, "0.3B"),
        (SIZE, True),
        (RATE, "fast"),
        (HOST_PORT, "localhost"),
        (HOST_PORT, ":80"),
        (HOST_PORT, "host:0"),
        (HOST_PORT, "host:65536"),
        (HOST_PORT, "::1:80"),
        (INTEGER, True),
        (INTEGER, "seven"),
        (INTEGER, 1.5),
        (NUMBER, "much"),
        (FLAG, "yes"),
        (FLAG, 2),
        (NAME, "two words"),
        (NAME, "../etc"),
        (TEXT, ""),
        (TEXT, 5),
        (PATH, ""),
        (PATH, ["a"]),
        (choice("auto", "never"), "often"),
        (choice("auto", "never"), ["auto"]),
        (bounded(INTEGER, 1), 0),
        (bounded(INTEGER, 1, 9), 10),
    ],
)
def test_what_cannot_be_used_is_refused(kind: Kind[object], value: object) -> None:
    with pytest.raises(ValueError):
        kind.read(value)


def test_a_list_names_each_item_that_is_wrong() -> None:
    with pytest.raises(Faults) as caught:
        listing(NAME).read(["good", "not good", 3])
    assert [fault.keys for fault in caught.value.faults] == [("item 2",), ("item 3",)]


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.text()))
def test_no_value_surprises_a_kind(value: object) -> None:
    kinds: tuple[Kind[object], ...] = (
        DURATION, FLAG, HOST_PORT, INTEGER, NAME, NUMBER, RATE, SIZE, TEXT, choice("a"), listing(SIZE),
    )  # fmt: skip
    for kind in kinds:
        try:
            kind.read(value)
        except ValueError:
            continue


@given(st.integers(min_value=0, max_value=10**18))
def test_a_duration_in_nanoseconds_is_exact(nanoseconds: int) -> None:
    assert DURATION.read(f"{nanoseconds}ns") == nanoseconds


def test_a_value_in_a_message_is_short_and_on_one_line() -> None:
    assert shown("a\nb\x1b[31m") == '"a?b?[31m"'
    assert len(shown("x" * 1000)) == 80
    assert shown("") == "nothing"
