"""What an estimate is good for: small errors, rates learnt, steps noticed, and farm time turned into local time."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.farmtime import Comparison, Estimate, Outcome, ramp_ns
from farmsyncd.core.messages.base import MessageError
from tests.oscillators import LIMIT_PPB, MICRO, MILLI, SECOND, Bench, Oscillator, Path, wandering

DAY = 86_400 * SECOND
EPOCH = "0123456789abcdef"


# The estimate is good


def test_on_a_path_of_a_millisecond_error_and_bound_are_small(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(7)
    bench = Bench(
        Oscillator(3 * DAY, 200_000, wandering(chance, 20)), Oscillator(10 * DAY, -30_000, wandering(chance, 20))
    )
    bounds, errors = [], []
    for _ in range(200):
        bench.settle(lambda: Path(*(chance.randrange(400 * MICRO, 700 * MICRO) for _ in range(2))), 8, 25 * MILLI)
        estimate = bench.estimate()
        bounds.append(estimate.error_bound_ns)
        errors.append(bench.judge(estimate))
        bench.wait(10 * SECOND)
    with capsys.disabled():
        print(
            f"\n  path of 1 ms, after bursts: error median {statistics.median(errors) / 1000:.1f} us, largest "
            f"{max(errors) / 1000:.1f} us; bound median {statistics.median(bounds) / 1000:.0f} us"
        )
    assert statistics.median(bounds) < 600 * MICRO
    assert statistics.median(errors) < 100 * MICRO


def test_the_rate_is_learnt_so_that_a_node_on_its_own_stays_near_the_truth() -> None:
    """The data server goes away for ten minutes: a clock that gains 200 ppm would be 120 ms off without its rate."""
    chance = random.Random(3)
    bench = Bench(Oscillator(3 * DAY, 200_000), Oscillator(10 * DAY))
    bench.settle(lambda: Path(*(chance.randrange(400 * MICRO, 700 * MICRO) for _ in range(2))), 60, 10 * SECOND)
    bench.wait(600 * SECOND)
    assert bench.judge() < 3 * MILLI


def test_on_a_long_path_the_estimate_is_far_better_than_what_is_proved() -> None:
    """80 ms there and back prove no rate for minutes; but whoever believes that rates change slowly knows it soon."""
    chance = random.Random(11)
    bench = Bench(
        Oscillator(3 * DAY, 200_000, wandering(chance, 20)), Oscillator(10 * DAY, -30_000, wandering(chance, 20))
    )
    jitter = [Path(*(40 * MILLI + int(MILLI * chance.expovariate(1)) for _ in range(2))) for _ in range(500)]
    bench.settle(jitter.pop, 60, 10 * SECOND)
    errors, a_minute_later = [], []
    for _ in range(200):
        bench.settle(jitter.pop, 1, 10 * SECOND)
        errors.append(bench.judge())
        now, estimate = bench.now, bench.estimate()
        bench.wait(60 * SECOND)
        a_minute_later.append(bench.judge(estimate))
        bench.now = now
    assert statistics.median(errors) < MILLI // 2
    assert statistics.median(a_minute_later) < MILLI * 6 // 10


def test_a_rate_that_wanders_faster_than_is_likely_costs_no_more_than_accuracy() -> None:
    bench = Bench(
        Oscillator(0, 0, [(100 * SECOND, 0), *[(30 * SECOND, 1500), (30 * SECOND, -1500)] * 40]), Oscillator(DAY)
    )
    bench.settle(Path(200 * MICRO, 200 * MICRO), 300, 5 * SECOND)


def test_a_belief_that_failed_is_given_up_for_what_is_proved() -> None:
    """A minute in which a board warmed up faster than is likely; then all is as good as before."""
    bench = Bench(Oscillator(0, 0, [(100 * SECOND, 0), (60 * SECOND, 1500), (10_000 * SECOND, 0)]), Oscillator(DAY))
    bench.settle(Path(200 * MICRO, 200 * MICRO), 100, 5 * SECOND)
    assert max(bench.errors[-60:]) < 20 * MICRO
    assert abs(bench.estimate().rate_ppb + 90_000) < 1_000


def test_the_bound_grows_with_age_and_shrinks_with_the_next_exchange() -> None:
    bench = Bench(Oscillator(DAY), Oscillator(0))
    bench.settle(Path(MILLI, MILLI), 10, 0)
    fresh = bench.estimate()
    grown = [fresh.bound_at(fresh.as_of_ns + age * SECOND) for age in range(100)]
    assert grown == sorted(grown)
    assert grown[0] == fresh.error_bound_ns < grown[-1]
    bench.wait(100 * SECOND)
    assert bench.estimate().error_bound_ns >= grown[-1]
    bench.exchange(Path(MILLI, MILLI))
    assert bench.estimate().error_bound_ns < grown[1]


def test_an_estimate_says_until_when_its_bound_stays_below_a_second() -> None:
    bench = Bench(Oscillator(DAY, LIMIT_PPB), Oscillator(0, -LIMIT_PPB))
    bench.exchange(Path(MICRO, MICRO))
    estimate = bench.estimate()
    assert estimate.bound_at(estimate.valid_until_ns) <= 1_010 * MILLI


# Steps, sleep, new epochs


def test_a_clock_that_runs_backwards_has_stepped() -> None:
    comparison = Comparison()
    comparison.add(10 * SECOND, 20 * SECOND, 20 * SECOND, 11 * SECOND, EPOCH)
    assert comparison.add(9 * SECOND, 19 * SECOND, 19 * SECOND, 10 * SECOND, EPOCH) is Outcome.RESTARTED
    estimate = comparison.estimate(10 * SECOND)
    assert estimate is not None
    assert estimate.error_bound_ns >= SECOND // 2


@pytest.mark.parametrize("by", [-DAY, -20 * MILLI, 20 * MILLI, DAY])
@pytest.mark.parametrize("which", ["node", "farm"])
def test_claim_s1_07_a_clock_that_steps_is_compared_anew_and_the_bound_holds_from_the_next_exchange_on(
    by: int, which: str
) -> None:
    bench = Bench(Oscillator(20 * DAY), Oscillator(30 * DAY))
    for _ in range(20):
        bench.settle(Path(MILLI, MILLI), 10, 100 * MILLI)
        getattr(bench, which).step(bench.now, by)
        assert bench.exchange(Path(MILLI, MILLI)) is Outcome.RESTARTED
        bench.judge()


def test_a_clock_that_stands_still_while_a_question_is_under_way_makes_no_estimate() -> None:
    bench = Bench(Oscillator(DAY), Oscillator(DAY))
    bench.settle(Path(MILLI, MILLI), 10, SECOND)
    t1 = bench.node.read(bench.now)
    t2 = bench.farm.read(bench.now)
    assert bench.comparison.add(t1, t2, t2 + 10 * SECOND, t1 + 2 * MILLI, bench.epoch) is Outcome.IMPOSSIBLE
    assert bench.comparison.estimate(t1 + 2 * MILLI) is None
    bench.wait(10 * SECOND)
    assert bench.exchange(Path(MILLI, MILLI)) is Outcome.STARTED
    bench.judge()


def test_a_new_epoch_starts_over_even_where_the_times_would_agree() -> None:
    bench = Bench(Oscillator(DAY), Oscillator(0))
    bench.settle(Path(MILLI, MILLI), 100, SECOND)
    bench.epoch = EPOCH
    assert bench.exchange(Path(10 * MILLI, 10 * MILLI)) is Outcome.STARTED
    assert bench.comparison.epoch == EPOCH
    assert bench.estimate().error_bound_ns > 9 * MILLI


def test_after_starting_over_nothing_is_known() -> None:
    bench = Bench(Oscillator(DAY), Oscillator(0))
    assert bench.comparison.estimate(0) is None
    bench.exchange(Path(MILLI, MILLI))
    bench.comparison.start_over()
    assert bench.comparison.estimate(0) is None
    assert bench.comparison.epoch is None


def test_an_answer_that_leaves_before_its_question_came_is_the_peers_fault() -> None:
    with pytest.raises(MessageError, match="expected an answer that leaves after"):
        Comparison().add(0, 100, 99, 200, EPOCH)


# From farm time to local time and back


@given(
    offset=st.integers(-(10**18), 10**18),
    rate=st.integers(-1_001_000, 1_001_000),
    as_of=st.integers(-(10**17), 10**17),
    ahead=st.integers(-(10**14), 10**14),
)
def test_claim_s1_06_an_activation_time_becomes_the_first_local_time_that_is_not_before_it(
    offset: int, rate: int, as_of: int, ahead: int
) -> None:
    estimate = Estimate(offset, rate, 1_000, as_of, as_of, 10_000)
    farm = as_of + offset + ahead
    local = estimate.local_ns(farm)
    assert estimate.farm_ns(local) >= farm > estimate.farm_ns(local - 1)


@given(
    rate=st.integers(-1_001_000, 1_001_000),
    error=st.integers(0, 1_001_000),
    first=st.integers(0, 10**13),
    second=st.integers(0, 10**13),
)
def test_an_estimate_told_as_of_another_time_says_the_same(rate: int, error: int, first: int, second: int) -> None:
    estimate = Estimate(12_345, rate, 1_000, 0, 0, error)
    later = estimate.at(first)
    assert later.as_of_ns == first
    local = first + second
    assert abs(later.farm_ns(local) - estimate.farm_ns(local)) <= 1
    assert 0 <= later.bound_at(local) - estimate.bound_at(local) <= 5 + second // SECOND


@given(rate=st.integers(-1_001_000, 1_001_000), wander=st.integers(1, 10_000), age=st.integers(0, 10**13))
def test_a_ramp_is_the_integral_of_a_rate_that_rises_and_stops(rate: int, wander: int, age: int) -> None:
    limit = 1_001_000
    risen = min(age / 1e9, (limit - rate) / wander)
    expected = rate * risen + wander * risen * risen / 2 + limit * (age / 1e9 - risen)
    assert ramp_ns(rate, wander, limit, age) == pytest.approx(expected, rel=1e-9, abs=2)
