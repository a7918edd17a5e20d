"""Two workers of the balancer against one: how many more connections they carry when each has a core to itself.

Where clients and nodes need the cores as well, the wall clock tells what is left for the balancer and not what it can
do. So what counts is CPU time: of two workers that have a core each, the busier one sets the pace, and what it cannot
share with the other is lost. Its CPU time, with all of the supervisor's, over that of the one that works alone, says
what the second one brings. Both have as many connections open for each worker, and take turns; what is told is of all
turns together. What two workers cost each other in the kernel is in there, since they run side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

import attrs

from bench.balancers import Nodes, Ours
from bench.goals import Goal, Say, at_least
from bench.helper import Helper

GOAL = 1.7
WORKERS = 2
_PATIENCE = 300.0


@attrs.frozen
class Sample:
    """What ``count`` connections took: CPU nanoseconds of each process, by its id, and wall seconds."""

    count: int
    cpu_ns: Mapping[int, int]
    seconds: float

    def __add__(self, other: Sample) -> Sample:
        """Two turns of the same processes."""
        used = {pid: used + other.cpu_ns[pid] for pid, used in self.cpu_ns.items()}
        return Sample(self.count + other.count, used, self.seconds + other.seconds)

    @property
    def share(self) -> float:
        """The busiest process' part."""
        return max(self.cpu_ns.values()) / sum(self.cpu_ns.values())

    @property
    def pace(self) -> float:
        """Connections per second when the busiest process has a core to itself, and does the small rest, too."""
        busiest, *others = sorted(self.cpu_ns.values(), reverse=True)
        return self.count / ((busiest + sum(others[WORKERS - 1 :])) / 1e9)

    @property
    def cost_us(self) -> float:
        """CPU microseconds of all processes for a connection."""
        return sum(self.cpu_ns.values()) / 1e3 / self.count


def measured(balancer: Ours, workers: int, shoppers: Helper, count: int, at_once: int, sources: int) -> Sample:
    """One turn, with so many connections for each worker. Raises RuntimeError when one ends badly."""
    before = balancer.cpu_ns()
    order = {"do": "short", "count": count * workers, "at_once": at_once * workers, "sources": sources}
    shoppers.tell({"port": balancer.port, **order})
    told = shoppers.hear(_PATIENCE)
    after = balancer.cpu_ns()
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} connections by {balancer.name} ended badly")
    return Sample(count * workers, {pid: after[pid] - before[pid] for pid in after}, told["seconds"])


def run(nodes: Nodes, shoppers: Helper, say: Say, count: int, at_once: int, sources: int, rounds: int) -> Goal:
    """One after the other, a few rounds of it."""
    with Ours(nodes) as alone, Ours(nodes, ("--workers", str(WORKERS))) as together:
        turns = ((alone, 1), (together, WORKERS))
        for balancer, number in turns:
            measured(balancer, number, shoppers, at_once * 4, at_once, sources)
        samples = [
            [measured(balancer, number, shoppers, count, at_once, sources) for balancer, number in turns]
            for _ in range(rounds)
        ]
    one, two = (reduce(add, column) for column in zip(*samples, strict=True))
    return compared(one, two, say)


def compared(one: Sample, two: Sample, say: Say) -> Goal:
    """What was found, in words, and the goal."""
    gain = two.pace / one.pace
    say(
        f"balancer: {WORKERS} workers against one: {two.cost_us:.3g} CPU us for a short connection, of all processes "
        f"together, against {one.cost_us:.3g}; the busier worker has {two.share:.0%} of it. With a core each, by CPU "
        f"time, they carry {gain:.3g} times as many. By the wall clock, on cores shared with clients and nodes: "
        f"{two.count / two.seconds:.0f} a second against {one.count / one.seconds:.0f}"
    )
    return at_least(f"connections per second of {WORKERS} workers with a core each, over one's", gain, GOAL)
