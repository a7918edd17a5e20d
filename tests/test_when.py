from __future__ import annotations

import pytest

from farmsyncd.core import when
from farmsyncd.core.refusal import Refused
from farmsyncd.core.when import When, WhenKind

NOW, LEAD = 1_000_000, 500


def ahead_by_a_million(utc_ns: int) -> int:
    return utc_ns + 1_000_000


def farm_ns(text: str) -> int:
    return when.read(text).farm_ns(NOW, LEAD, ahead_by_a_million)


def test_now_is_as_soon_as_the_lead_allows_in_counts_from_now_and_at_is_utc() -> None:
    assert farm_ns("now") == NOW + LEAD
    assert farm_ns("in:1") == NOW + 1
    assert farm_ns("at:5") == 1_000_005
    assert When(WhenKind.FARM, NOW + 7).farm_ns(NOW, LEAD, ahead_by_a_million) == NOW + 7


@pytest.mark.parametrize("text", ["now", "in:0", "in:90000000000", "at:1795302028453711384"])
def test_what_is_read_is_spelled_as_it_was(text: str) -> None:
    assert when.read(text).spell() == text


@pytest.mark.parametrize(
    "text", ["", "Now", "in", "in:", "in:-1", "in:01", "in:1.5", "at:+1", "at: 1", "farm:1", "in:" + "9" * 20, "now\n"]
)
def test_what_spells_no_time_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="expected now, in:NANOSECONDS or at:NANOSECONDS") as refused:
        when.read(text)
    assert refused.value.code == "bad"


@pytest.mark.parametrize("text", ["in:0", "at:0", "in:9999999999999999999"])
def test_times_that_have_passed_or_can_never_be_kept_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="expected an activation time") as refused:
        farm_ns(text)
    assert refused.value.code == "bad"
