"""Run benchmarks: ``python -m bench [NAME ...]``, all of them without a name.

Ends with status 0 when all that were asked for could be run, whether or not each goal was met: a busy machine misses
some. Status 64 for a name that there is not, 1 when a benchmark broke.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from bench import balancer, clock, flip, nodes, reader, sessions, shop, staging
from bench.goals import Goal, at_least, at_most


def _reader() -> list[Goal]:
    found = reader.run()
    return [
        at_most("snapshot() and a small read", found["ours_us"], reader.GOAL_US, "us"),
        at_least("times faster than open and read", found["ratio"], 1),
    ]


def _clock() -> list[Goal]:
    violations = sum(row.violations for row in clock.run())
    return [at_most("violations of the clock comparison's bound", violations, 0)]


BENCHMARKS: Mapping[str, Callable[[], list[Goal]]] = {
    "flip": flip.run,
    "staging": staging.run,
    "nodes": nodes.run,
    "balancer": balancer.run,
    "sessions": sessions.run,
    "shop": shop.run,
    "reader": _reader,
    "clock": _clock,
}


def main(arguments: Sequence[str], benchmarks: Mapping[str, Callable[[], list[Goal]]] = BENCHMARKS) -> int:
    """Run those that are named; the exit status."""
    unknown = [name for name in arguments if name not in benchmarks]
    if unknown:
        print(f"expected names of benchmarks ({', '.join(benchmarks)}), found {', '.join(unknown)}", file=sys.stderr)
        return 64
    results: dict[str, list[Goal] | None] = {}
    for name in arguments or benchmarks:
        try:
            results[name] = benchmarks[name]()
        except Exception:
            traceback.print_exc()
            results[name] = None
        print(flush=True)
    for name, found in results.items():
        lines = ["broke; see above"] if found is None else [str(goal) for goal in found]
        for line in lines:
            print(f"{name}: {line}")
    return 1 if None in results.values() else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
