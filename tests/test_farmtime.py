"""The clock comparison keeps its promise, I-1: the truth is always within the bound, whatever clocks and paths do."""

from __future__ import annotations

import random
import statistics

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.core.farmtime import HARD, Behaviour, Comparison, Estimate, Outcome, Region
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
    wandering,
)

DAY = 86_400 * SECOND
EPOCH = "0123456789abcdef"


def _estimate(comparison: Comparison, local_ns: int) -> Estimate:
    estimate = comparison.estimate(local_ns)
    assert estimate is not None
    return estimate


def _clock(chance: random.Random, tick_ns: int = 1) -> Oscillator:
    return Oscillator(
        chance.randint(-5 * DAY, 5 * DAY) + 10 * DAY,
        chance.randint(-LIMIT_PPB, LIMIT_PPB),
        wandering(chance, chance.choice([0, 20, WANDER_PPB_PER_S])),
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


def test_the_bound_holds_when_a_clock_goes_from_one_limit_to_the_other_unseen() -> None:
    """Longer than anybody should be without the data server: the rate's error passes what the rate itself may be."""
    settled = [(60 * SECOND, 0)]
    for sign in (1, -1):
        bench = Bench(
            Oscillator(DAY, sign * LIMIT_PPB, [*settled, *[(SECOND, -sign * WANDER_PPB_PER_S)] * 600]),
            Oscillator(0, -sign * LIMIT_PPB, [*settled, *[(SECOND, sign * WANDER_PPB_PER_S)] * 600]),
        )
        bench.settle(Path(0, 0), 620, SECOND // 10)
        for _ in range(100):
            bench.wait(20 * SECOND)
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


# What is assumed


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
