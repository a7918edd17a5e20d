"""Clocks that are wrong on purpose: what ``--skew`` may say, and arithmetic that loses no nanosecond."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.skew import Skew, parse_skew
from farmsyncd.edges.timing.clocks import RawClock, SkewedClock, boot_id, slept_ns

SECOND = 1_000_000_000


class _Fixed:
    def __init__(self, machine_ns: int) -> None:
        self.at = machine_ns

    def now_ns(self) -> int:
        return self.at

    def machine_ns(self, local_ns: int) -> int:
        return local_ns


@pytest.mark.parametrize(
    ("text", "skew"),
    [
        ("3600", Skew(3600 * SECOND, 0)),
        ("-12.5,200", Skew(-12_500_000_000, 200_000)),
        ("+0.000000001,-0.5", Skew(1, -500)),
        ("0,500", Skew(0, 500_000)),
        (" 1 , 2 ", Skew(SECOND, 2_000)),
        ("1e3", Skew(1000 * SECOND, 0)),
    ],
)
def test_a_skew_is_seconds_and_perhaps_ppm(text: str, skew: Skew) -> None:
    assert parse_skew(text) == skew


@pytest.mark.parametrize("text", ["", "soon", "1,", ",5", "1,2,3", "nan", "inf", "1,nan", "0x10"])
def test_what_is_no_skew_is_told_how_one_looks(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected SECONDS\[,PPM\]"):
        parse_skew(text)


@pytest.mark.parametrize(("text", "most"), [("1,501", "500 ppm"), ("0,-500.001", "500 ppm"), ("1e11", "seconds")])
def test_a_skew_beyond_what_the_comparison_allows_is_refused(text: str, most: str) -> None:
    with pytest.raises(ValueError, match=most):
        parse_skew(text)


@given(st.integers(0, 10**18), st.integers(-(10**18), 10**18), st.integers(-500_000, 500_000))
def test_a_wrong_clock_can_be_asked_when_it_will_show_a_time(machine_ns: int, shift_ns: int, rate_ppb: int) -> None:
    skew = Skew(shift_ns, rate_ppb)
    shown = skew.shown_ns(machine_ns)
    first = skew.machine_ns(shown)
    assert skew.shown_ns(first) >= shown > skew.shown_ns(first - 1)
    assert abs(first - machine_ns) <= 1


@given(st.integers(0, 10**17), st.integers(0, 10**12))
def test_a_wrong_clock_runs_at_its_rate(machine_ns: int, elapsed: int) -> None:
    clock = SkewedClock(base := _Fixed(machine_ns), Skew(-5 * SECOND, 200_000))
    before = clock.now_ns()
    base.at += elapsed
    assert abs(clock.now_ns() - before - elapsed - elapsed // 5000) <= 1


def test_claim_s1_07_clocks_may_be_wrong_each_in_its_own_way_over_one_machines_clock() -> None:
    late = SkewedClock(RawClock(), parse_skew("-3600,200"))
    early = SkewedClock(RawClock(), parse_skew("86400,-300"))
    assert early.now_ns() - late.now_ns() > 89_000 * SECOND
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    shown = late.now_ns(), early.now_ns()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert before <= late.machine_ns(shown[0]) <= after
    assert before <= early.machine_ns(shown[1]) <= after


def test_wrong_clocks_can_be_stacked() -> None:
    base = _Fixed(10**15)
    clock = SkewedClock(SkewedClock(base, Skew(7, 100_000)), Skew(-9, -250_000))
    assert abs(clock.machine_ns(clock.now_ns()) - base.at) <= 2


def test_how_long_the_machine_slept_hardly_changes_while_it_does_not_sleep() -> None:
    first = slept_ns()
    assert first >= 0
    assert abs(slept_ns() - first) < SECOND


def test_a_boot_has_one_name() -> None:
    assert boot_id() == boot_id()
    assert len(boot_id()) >= 36
