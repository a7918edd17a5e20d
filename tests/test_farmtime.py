"""The clock comparison keeps its promise, I-1: the truth is always within the bound, whatever clocks and paths do."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.core.farmtime import HARD, Behaviour, Comparison, Estimate, Outcome, Region, ramp_ns
from farmsyncd.core.messages.base import MessageError
from tests.oscillators import (
    LIMIT_PPB,
    MICRO,
    MILLI,
    SECOND,
    WANDER_PPB_PER_S,
    Bench,
    Oscillator,
    Path,
    steadily,
)

DAY = 86_400 * SECOND
EPOCH = "0123456789abcdef"


def _estimate(comparison: Comparison, local_ns: int) -> Estimate:
    estimate = comparison.estimate(local_ns)
    assert estimate is not None
    return estimate


def _wandering(chance: random.Random, most: int = WANDER_PPB_PER_S) -> Iterator[tuple[int, int]]:
    while True:
        yield chance.randrange(MILLI, 20 * SECOND), chance.randint(-most, most)


def _clock(chance: random.Random, tick_ns: int = 1) -> Oscillator:
    return Oscillator(
        chance.randint(-5 * DAY, 5 * DAY) + 10 * DAY,
        chance.randint(-LIMIT_PPB, LIMIT_PPB),
        _wandering(chance, chance.choice([0, 20, WANDER_PPB_PER_S])),
        tick_ns=tick_ns,
    )


def _jitter(chance: random.Random, one_way_ns: int) -> Path:
    """Mostly near one time, sometimes far from it, and lopsided in a way that changes."""
    there, back = (int(one_way_ns * (0.7 + chance.expovariate(3))) for _ in range(2))
    if chance.random() < 0.05:
        there *= chance.choice([1, 10, 50])
    if chance.random() < 0.05:
        back *= chance.choice([1, 10, 50])
    return Path(there, back, chance.choice([0, 20 * MICRO, MILLI]))


# The bound holds


@pytest.mark.parametrize("seed", range(8))
def test_claim_s1_05_a_nodes_clock_is_compared_with_the_data_servers_without_one_violation_of_the_bound(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(seed)
    one_way = chance.choice([30 * MICRO, 500 * MICRO, 5 * MILLI, 40 * MILLI])
    bench = Bench(_clock(chance, chance.choice([1, 100, 279])), _clock(chance, chance.choice([1, 100, 279])))
    for _ in range(5_000):
        outcome = bench.exchange(_jitter(chance, one_way))
        assert outcome in (Outcome.STARTED, Outcome.NARROWED)
        bench.judge()
        bench.wait(chance.choice([0, 20 * MILLI, SECOND, 8 * SECOND, 30 * SECOND]))
        bench.judge()
    with capsys.disabled():
        print(
            f"\n  one way {one_way / 1000:.0f} us: 5,000 exchanges, error median "
            f"{statistics.median(bench.errors) / 1000:.1f} us, largest {max(bench.errors) / 1000:.1f} us; "
            f"bound median {statistics.median(bench.bounds) / 1000:.1f} us; no violation"
        )
    assert statistics.median(bench.errors) < statistics.median(bench.bounds)


@pytest.mark.parametrize("seed", range(4))
def test_an_old_estimate_holds_for_as_long_as_it_is_kept(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(_clock(chance), _clock(chance))
    for _ in range(100):
        bench.settle(lambda: _jitter(chance, MILLI), 5, SECOND)
        old = bench.estimate()
        then = bench.now
        bench.wait(chance.choice([0, MILLI, 10 * SECOND, 3600 * SECOND]))
        bench.judge(old)
        bench.now = then


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_holds_when_both_clocks_run_as_wrongly_as_they_may_and_is_not_wider_than_that_needs(
    sign: int,
) -> None:
    bench = Bench(Oscillator(DAY, -sign * LIMIT_PPB), Oscillator(0, sign * LIMIT_PPB))
    bench.exchange(Path(0, 0))
    bench.wait(1000 * SECOND)
    error = bench.judge()
    assert error > 0.998 * bench.bounds[-1]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_holds_when_a_rate_that_was_known_well_changes_as_fast_as_it_may(sign: int) -> None:
    """The wander begins before the last exchanges, so that the mean rate they prove is already out of date."""
    settled = [(60 * SECOND, 0)]
    bench = Bench(
        Oscillator(DAY, sign * LIMIT_PPB // 2, [*settled, *[(SECOND, -sign * WANDER_PPB_PER_S)] * 200]),
        Oscillator(0, -sign * LIMIT_PPB // 2, [*settled, *[(SECOND, sign * WANDER_PPB_PER_S)] * 200]),
    )
    bench.settle(Path(0, 0), 620, SECOND // 10)
    for _ in range(60):
        bench.wait(SECOND)
        bench.judge()
    assert bench.errors[-1] > 0.98 * bench.bounds[-1]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("gap", [MILLI, SECOND, 20 * SECOND])
def test_the_bound_holds_while_a_rate_changes_as_fast_as_it_may(sign: int, gap: int) -> None:
    bench = Bench(
        Oscillator(DAY, sign * LIMIT_PPB, steadily(-sign * WANDER_PPB_PER_S)),
        Oscillator(0, -sign * LIMIT_PPB, steadily(sign * WANDER_PPB_PER_S)),
    )
    for _ in range(250):
        bench.settle(Path(0, 0), 1, 0)
        known = bench.estimate()
        bench.wait(gap)
        bench.judge(known)


@pytest.mark.parametrize("lopsided", [Path(MILLI, 0), Path(0, MILLI), Path(0, 0, MILLI)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_holds_on_the_most_lopsided_path(lopsided: Path, sign: int) -> None:
    bench = Bench(Oscillator(0, sign * LIMIT_PPB), Oscillator(DAY, -sign * LIMIT_PPB))
    bench.settle(lopsided, 2_000, 50 * MILLI)
    assert bench.worst_use > (0.3 if lopsided.server_ns == 0 else 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_holds_when_the_path_turns_over_to_pretend_another_rate(sign: int) -> None:
    """The path's asymmetry moves as a clock would that gains: nothing tells the two apart, so both must fit."""
    bench = Bench(Oscillator(0), Oscillator(DAY))
    lean = 0
    for turn in range(3_000):
        lean = (turn * 10 * MICRO) % (2 * MILLI)
        there = lean if sign > 0 else 2 * MILLI - lean
        bench.settle(Path(there, 2 * MILLI - there), 1, 100 * MILLI)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_holds_from_edge_to_edge(sign: int) -> None:
    """A lopsided exchange, a silence, and one lopsided the other way: the rate is at the edge of what they prove."""
    for apart in (MILLI, 30 * MILLI, SECOND, 30 * SECOND):
        bench = Bench(
            Oscillator(0, 0, steadily(-sign * WANDER_PPB_PER_S)), Oscillator(DAY, 0, steadily(sign * WANDER_PPB_PER_S))
        )
        first, second = Path(0, 100 * MICRO), Path(100 * MICRO, 0)
        bench.settle(first, 1, apart)
        bench.settle(second, 1, apart)
        bench.settle(first, 1, 100 * SECOND)


def test_readings_that_lag_by_the_coarsest_tick_are_allowed_for() -> None:
    for offset in range(0, 279, 7):
        bench = Bench(Oscillator(DAY + offset, tick_ns=279), Oscillator(DAY, tick_ns=1))
        other = Bench(Oscillator(DAY, tick_ns=1), Oscillator(DAY + offset, tick_ns=279))
        for one in (bench, other):
            for gap in range(1, 280, 13):
                one.settle(Path(0, 0), 1, gap)


def test_questions_that_overlap_prove_no_more_than_they_may() -> None:
    """Two under way at once: the second was sent before the first was answered."""
    node, farm = Oscillator(0, -LIMIT_PPB), Oscillator(DAY, LIMIT_PPB)
    comparison = Comparison()
    for begin in range(0, 100 * SECOND, SECOND):
        comparison.add(node.read(begin), farm.read(begin), farm.read(begin), node.read(begin + 80 * MILLI), EPOCH)
        late = begin + 10 * MILLI
        outcome = comparison.add(
            node.read(late), farm.read(late), farm.read(late), node.read(begin + 90 * MILLI), EPOCH
        )
        assert outcome is Outcome.NARROWED
        now = begin + 90 * MILLI
        estimate = _estimate(comparison, node.read(now))
        assert abs(estimate.farm_ns(node.read(now)) - farm.read(now)) <= estimate.error_bound_ns


def test_the_wire_carries_nothing_that_narrows_more_than_it_proves() -> None:
    """One exchange alone: every offset that it allows is within the bound, and no more than its tick beyond."""
    comparison = Comparison()
    comparison.add(1_000_000, 5_000_000, 5_000_400, 2_000_000, EPOCH)
    estimate = _estimate(comparison, 2_000_000)
    lowest, highest = 5_000_400 - 2_000_000, 5_000_000 - 1_000_000
    assert estimate.offset_ns - estimate.error_bound_ns <= lowest - HARD.reading_ns
    assert estimate.offset_ns + estimate.error_bound_ns >= highest + HARD.reading_ns + 1000  # 1 ms at 1000 ppm
    assert 2 * estimate.error_bound_ns < highest - lowest + 2 * HARD.reading_ns + 1_100


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_bound_holds_for_any_clocks_and_paths(data: st.DataObject) -> None:
    def clock() -> Oscillator:
        slopes = st.sampled_from([0, 0, WANDER_PPB_PER_S, -WANDER_PPB_PER_S, 37, -911])
        return Oscillator(
            data.draw(st.integers(0, 20 * DAY)),
            data.draw(st.sampled_from([0, LIMIT_PPB, -LIMIT_PPB, 123_456])),
            data.draw(st.lists(st.tuples(st.integers(MILLI, 100 * SECOND), slopes), max_size=6)),
            tick_ns=data.draw(st.sampled_from([1, 279])),
        )

    times = st.sampled_from([0, 1, MICRO, 77 * MICRO, MILLI, 80 * MILLI])
    bench = Bench(clock(), clock())
    steps = st.tuples(times, times, times, st.sampled_from([0, MILLI, SECOND, 30 * SECOND, 1000 * SECOND]))
    for there, back, at_server, gap in data.draw(st.lists(steps, min_size=1, max_size=25)):
        bench.settle(Path(there, back, at_server), 1, gap)


# The estimate is good


def test_on_a_path_of_a_millisecond_error_and_bound_are_small(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(7)
    bench = Bench(
        Oscillator(3 * DAY, 200_000, _wandering(chance, 20)), Oscillator(10 * DAY, -30_000, _wandering(chance, 20))
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


def test_a_rate_that_wanders_faster_than_is_likely_costs_no_more_than_accuracy() -> None:
    bench = Bench(
        Oscillator(0, 0, [(100 * SECOND, 0), *[(30 * SECOND, 1500), (30 * SECOND, -1500)] * 40]), Oscillator(DAY)
    )
    bench.settle(Path(200 * MICRO, 200 * MICRO), 300, 5 * SECOND)


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


def test_the_behaviour_that_is_assumed_follows_from_what_each_oscillator_may_do() -> None:
    """The derivation in the module's docstring, in numbers; wider than that would make every bound worse."""
    worst, wander = LIMIT_PPB / 1e9, WANDER_PPB_PER_S / 1e9
    assert (1 + worst) / (1 - worst) - 1 <= HARD.rate_ppb / 1e9 < 1.001 * ((1 + worst) / (1 - worst) - 1)
    fastest = (wander / (1 - worst) + wander * (1 + worst) / (1 - worst) ** 2) / (1 - worst)
    assert fastest <= HARD.wander_ppb_per_s / 1e9 < 1.002 * fastest


@pytest.mark.parametrize(
    "weaker",
    [
        {"rate_ppb": HARD.rate_ppb - 1_000},
        {"wander_ppb_per_s": HARD.wander_ppb_per_s * 19 // 20},
        {"reading_ns": 200},
    ],
)
def test_with_any_weaker_assumption_these_benches_find_a_violation(weaker: dict[str, int]) -> None:
    """The tests above are sharp: clocks at the limit break a bound that assumes a little less of them."""
    weak: Behaviour = attrs.evolve(HARD, **weaker)
    benches = [
        (Bench(Oscillator(DAY, -LIMIT_PPB), Oscillator(0, LIMIT_PPB), Comparison(weak)), 1),
        (
            Bench(
                Oscillator(DAY, 0, [(60 * SECOND, 0), *[(SECOND, -WANDER_PPB_PER_S)] * 200]),
                Oscillator(0, 0, [(60 * SECOND, 0), *[(SECOND, WANDER_PPB_PER_S)] * 200]),
                Comparison(weak),
            ),
            610,
        ),
        (Bench(Oscillator(DAY + 1, tick_ns=279), Oscillator(DAY), Comparison(weak)), 1),
        (Bench(Oscillator(DAY), Oscillator(DAY + 278, tick_ns=279), Comparison(weak)), 1),
    ]
    with pytest.raises(AssertionError, match="I-1"):
        _run_all(benches)


def _run_all(benches: list[tuple[Bench, int]]) -> None:
    for bench, exchanges in benches:
        bench.settle(Path(0, 0), exchanges, SECOND // 10)
        for _ in range(200):
            bench.judge()
            bench.wait(SECOND)


def test_a_box_remembers_little_and_reaches_far_back() -> None:
    region = Region.of(HARD, 0, 0, 0, 0)
    for at in range(0, 7200 * SECOND, SECOND):
        region.take(at, at, at, at)
    ages = [region.at_ns - mark.at_ns for mark in region._marks]
    assert len(ages) < 50
    assert max(ages) > 1000 * SECOND
