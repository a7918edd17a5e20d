"""When a node compares its clock: bursts where they count, and seldom enough for a thousand nodes on one server."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import attrs
import pytest

from farmsyncd.core.farmtime import Estimate
from farmsyncd.core.probing import MILLI, SECOND, Pace, Prober

GOOD = Estimate(0, 0, 50_000, 0, 0, 1_000)


@attrs.define
class _Run:
    """Plays a prober's plan: every question is answered after ``path_ns``."""

    prober: Prober
    path_ns: int = MILLI
    now: int = 1000 * SECOND
    asked: list[int] = attrs.Factory(list)

    def until(self, end: int, estimate: Callable[[int], Estimate | None] = lambda _: GOOD) -> list[int]:
        """When it asked, from now to ``end``."""
        first = len(self.asked)
        while (at := max(self.prober.next_at(self.now), self.now)) < end:
            self.now = at
            if self.prober.next_at(at) <= at:
                self.asked.append(at)
                self.now += self.path_ns
                self.prober.answered(self.now, estimate(self.now))
        self.now = max(self.now, end)
        return self.asked[first:]


def _run(seed: int = 1) -> _Run:
    chance = random.Random(seed)
    run = _Run(Prober(chance.random))
    run.prober.burst(run.now)
    return run


def test_a_burst_comes_first_and_then_ever_larger_distances() -> None:
    run = _run()
    asked = run.until(run.now + 60 * SECOND)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert all(gap < 50 * MILLI for gap in gaps[:7])
    for gap, most in zip(gaps[7:10], [1, 2, 4], strict=True):
        assert 0.7 * most < gap / SECOND < 1.1 * most
    assert all(gap >= 7 * SECOND for gap in gaps[11:])


@pytest.mark.parametrize("estimate", [GOOD, attrs.evolve(GOOD, error_bound_ns=40 * MILLI, rate_error_ppb=1_001_000)])
def test_a_settled_node_asks_seldom_enough_for_a_thousand_on_one_server(estimate: Estimate) -> None:
    run = _run()
    run.until(run.now + 120 * SECOND)
    asked = run.until(run.now + 3600 * SECOND, lambda _: estimate)
    assert 3600 / 31 <= len(asked) <= 3600 / 7.5


def test_a_bound_that_grows_slowly_is_left_alone_for_longer() -> None:
    slow, fast = _run(), _run()
    still = attrs.evolve(GOOD, error_bound_ns=5 * MILLI, rate_error_ppb=10_000)
    rarely = slow.until(slow.now + 3600 * SECOND, lambda _: still)
    often = fast.until(fast.now + 3600 * SECOND, lambda _: attrs.evolve(GOOD, rate_error_ppb=1_000_000))
    assert len(rarely) < len(often) / 2


def test_without_an_estimate_it_asks_on() -> None:
    run = _run()
    assert len(run.until(run.now + SECOND, lambda _: None)) > 30


@pytest.mark.parametrize("seed", range(20))
def test_before_an_activation_two_bursts_come_and_the_last_ends_before_it(seed: int) -> None:
    run = _run(seed)
    run.path_ns = 80 * MILLI
    run.until(run.now + 300 * SECOND)
    activation = run.now + 100 * SECOND
    run.prober.expect(run.now, [activation])
    asked = run.until(activation)
    assert len([at for at in asked if 2 * SECOND < activation - at <= 7 * SECOND]) >= 8
    last = [at for at in asked if activation - at <= 1700 * MILLI]
    assert len(last) >= 8
    assert activation - last[7] > 200 * MILLI


def test_a_farm_does_not_ask_in_one_millisecond() -> None:
    activation = 1100 * SECOND
    begun = []
    for seed in range(1000):
        run = _run(seed)
        run.until(run.now + 50 * SECOND)
        run.prober.expect(run.now, [activation])
        begun += run.until(activation)
    for width, most in ((MILLI, 60), (100 * MILLI, 3000)):
        crowds: dict[int, int] = {}
        for at in begun:
            if at > activation - 7 * SECOND:
                crowds[at // width] = crowds.get(at // width, 0) + 1
        assert max(crowds.values()) < most


def test_an_activation_that_hardly_moves_keeps_its_bursts_and_has_each_once() -> None:
    run, chance = _run(), random.Random(2)
    run.until(run.now + 60 * SECOND)
    activation = run.now + 20 * SECOND
    asked = 0
    while run.now < activation:
        moved = activation + chance.randrange(-MILLI, MILLI)
        run.prober.expect(run.now, [moved, activation + 3600 * SECOND])
        asked += len(run.until(run.now + 100 * MILLI))
    assert 16 <= asked <= 30


def test_between_bursts_nodes_that_began_together_drift_apart() -> None:
    gaps = []
    for chance in (0.0, 0.5, 0.999):
        prober = Prober(lambda chance=chance: chance)  # type: ignore[misc]
        prober.burst(0)
        for _ in range(prober.pace.burst):
            prober.answered(0, GOOD)
        gaps.append(prober.next_at(0))
    assert gaps == [SECOND, SECOND * 7 // 8, pytest.approx(0.75 * SECOND, rel=0.01)]


def test_of_a_window_that_has_begun_what_is_left_is_shared() -> None:
    """Else all nodes that hear of an activation in it would ask at the same instant: when they hear of it."""
    prober = Prober(lambda: 0.5)
    prober.answered(0, GOOD)
    prober.expect(0, [4 * SECOND])
    assert prober.next_at(0) == SECOND // 2


@pytest.mark.parametrize("ahead", [500 * MILLI, 1500 * MILLI, 2500 * MILLI, 4 * SECOND])
def test_an_activation_that_is_near_already_gets_a_burst_in_time(ahead: int) -> None:
    run = _run()
    run.until(run.now + 600 * SECOND)
    activation = run.now + ahead
    run.prober.expect(run.now, [activation])
    assert len(run.until(activation - 200 * MILLI)) >= 8


def test_an_activation_that_has_passed_is_not_asked_for() -> None:
    run = _run()
    run.until(run.now + 600 * SECOND)
    run.prober.expect(run.now, [run.now - SECOND])
    assert len(run.until(run.now + 5 * SECOND)) <= 1


def test_a_cancelled_activation_is_forgotten() -> None:
    run = _run()
    run.until(run.now + 600 * SECOND)
    run.prober.expect(run.now, [run.now + 30 * SECOND])
    run.prober.expect(run.now, [])
    assert len(run.until(run.now + 30 * SECOND)) <= 4


def test_what_is_asked_of_a_pace_is_what_it_does() -> None:
    chance = random.Random(0)
    run = _Run(Prober(chance.random, Pace(burst=3, burst_gap_ns=SECOND, rushes=())))
    run.prober.burst(run.now)
    begins = run.now
    asked = run.until(run.now + 2500 * MILLI)
    assert [at - begins for at in asked] == [0, SECOND + MILLI, 2 * (SECOND + MILLI)]
