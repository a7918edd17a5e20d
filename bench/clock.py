"""How good the clock comparison is: its error beside its bound, over simulated clocks and paths of several lengths.

Clocks are days apart, off by up to 500 ppm and wandering as real ones do; delays jitter, are lopsided, and now and then
fifty times as long. Truth is known because the clocks are simulated. ``violations`` must be 0: that is the promise.
"""

from __future__ import annotations

import random
import statistics

import attrs

from tests.oscillators import LIMIT_PPB, MICRO, MILLI, SECOND, Bench, Oscillator, Path, wandering

DAY = 86_400 * SECOND
EXCHANGES = 10_000
LIKELY_WANDER_PPB_PER_S = 20


@attrs.frozen
class Row:
    """One path. ``error`` and ``bound`` in nanoseconds, at all times between two exchanges."""

    one_way_ns: int
    exchanges: int
    error_median_ns: float
    error_p99_ns: float
    error_most_ns: float
    bound_median_ns: float
    bound_p99_ns: float
    violations: int


def _path(chance: random.Random, one_way_ns: int) -> Path:
    there, back = (int(one_way_ns * (0.8 + chance.expovariate(5))) for _ in range(2))
    if chance.random() < 0.02:
        there *= 50
    if chance.random() < 0.02:
        back *= 50
    return Path(there, back, 50 * MICRO)


def compare(one_way_ns: int, exchanges: int = EXCHANGES, seed: int = 1) -> Row:
    """Bursts and single exchanges, as a node makes them, on one path."""
    chance = random.Random(seed)
    node, farm = (
        Oscillator(
            chance.randrange(10 * DAY),
            chance.randint(-LIMIT_PPB, LIMIT_PPB),
            wandering(chance, LIKELY_WANDER_PPB_PER_S),
        )
        for _ in range(2)
    )
    bench = Bench(node, farm)
    violations = 0
    for number in range(exchanges):
        bench.exchange(_path(chance, one_way_ns))
        bench.wait(25 * MILLI if number % 20 < 8 else 10 * SECOND)
        try:
            bench.judge()
        except AssertionError:
            violations += 1
    errors, bounds = sorted(bench.errors), sorted(bench.bounds)
    return Row(
        one_way_ns,
        exchanges,
        statistics.median(errors),
        errors[len(errors) * 99 // 100],
        errors[-1],
        statistics.median(bounds),
        bounds[len(bounds) * 99 // 100],
        violations,
    )


def run() -> list[Row]:
    """Print a table, a line for each path, and give back its rows."""
    print("clock comparison: error beside its bound, in microseconds")
    titles = ("error", "p99", "most", "bound", "p99")
    print(f"{'one way':>10} {'exchanges':>10} {' '.join(f'{title:>9}' for title in titles)} {'violations':>11}")
    rows = [compare(one_way) for one_way in (30 * MICRO, 500 * MICRO, 5 * MILLI, 40 * MILLI)]
    for row in rows:
        numbers = (
            row.error_median_ns,
            row.error_p99_ns,
            row.error_most_ns,
            row.bound_median_ns,
            row.bound_p99_ns,
        )
        told = " ".join(f"{number / MICRO:>9.1f}" for number in numbers)
        print(f"{row.one_way_ns / MICRO:>10.0f} {row.exchanges:>10} {told} {row.violations:>11}")
    return rows
