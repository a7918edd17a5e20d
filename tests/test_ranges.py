"""Ranges of chunk numbers: one spelling for each set, read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import ranges


@given(st.frozensets(st.integers(0, 300)))
def test_what_is_spelled_is_read_back(numbers: frozenset[int]) -> None:
    assert ranges.read(ranges.spell(numbers), 301) == sorted(numbers)


@given(st.text("0123456789,-", max_size=12))
def test_each_set_has_one_spelling(text: str) -> None:
    try:
        numbers = ranges.read(text.encode(), 1000)
    except ValueError:
        return
    assert ranges.spell(numbers) == text.encode()


def test_the_spelling_is_what_the_protocol_says() -> None:
    assert ranges.spell([105, *range(100)]) == b"0-99,105"
    assert ranges.spell([]) == b""
    assert ranges.spell([7, 7, 8]) == b"7-8"


@pytest.mark.parametrize("text", ["1-", "-1", "2-1", "3-3", "1,2", "5,1", "01", "1,,3", " 1", "a", "1-2-3", "٣"])
def test_what_nobody_would_spell_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        ranges.read(text.encode(), 1000)


@pytest.mark.parametrize("text", ["10", "0-10", "9999999999", "0-9999999999"])
def test_numbers_beyond_the_limit_are_refused_before_any_is_made(text: str) -> None:
    with pytest.raises(ValueError, match="below 10"):
        ranges.read(text.encode(), 10)
