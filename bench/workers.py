"""Two workers of the balancer against one: how many more connections they carry when each has a core to itself.

Where clients and nodes need the cores as well, the wall clock tells what is left for the balancer and not what it can
do. So what counts is CPU time: of two workers that have a core each, the busier one sets the pace, and what it cannot
share with the other is lost. Its CPU time, with all of the supervisor's, over that of the one that works alone with the
same number of connections, says what the second one brings. Both have as many connections open for each worker. What
they cost each other in the kernel is in there, since they run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from bench.balancers import Nodes, Ours
from bench.goals import Goal, Say, at_least, median
from bench.helper import Helper

GOAL = 1.7
WORKERS = 2
_PATIENCE = 300.0


@attrs.frozen
class Sample:
    """One turn of ``count`` connections: the CPU nanoseconds of each process, the busiest first, and wall seconds."""

    count: int
    cpu_ns: Sequence[int]
    seconds: float

    @property
    def pace(self) -> float:
        """Connections per second when the busiest process has a core to itself, and does the small rest, too."""
        busiest, *others = self.cpu_ns
        return self.count / ((busiest + sum(others[WORKERS - 1 :])) / 1e9)

    @property
    def cost_us(self) -> float:
        """CPU microseconds of all processes for a connection."""
        return sum(self.cpu_ns) / 1e3 / self.count


def measured(balancer: Ours, workers: int, shoppers: Helper, count: int, at_once: int, sources: int) -> Sample:
    """One turn, with so many connections for each worker. Raises RuntimeError when one ends badly."""
    before = balancer.cpu_ns()
    order = {"do": "short", "count": count * workers, "at_once": at_once * workers, "sources": sources}
    shoppers.tell({"port": balancer.port, **order})
    told = shoppers.hear(_PATIENCE)
    after = balancer.cpu_ns()
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} connections by {balancer.name} ended badly")
    used = sorted((after[pid] - before[pid] for pid in after), reverse=True)
    return Sample(count * workers, used, told["seconds"])


def run(nodes: Nodes, shoppers: Helper, say: Say, count: int, at_once: int, sources: int, rounds: int) -> Goal:
    """One after the other, a few rounds of it; what is told is the median."""
    with Ours(nodes) as alone, Ours(nodes, ("--workers", str(WORKERS))) as together:
        turns = ((alone, 1), (together, WORKERS))
        for balancer, number in turns:
            measured(balancer, number, shoppers, at_once * 4, at_once, sources)
        samples = [
            [measured(balancer, number, shoppers, count, at_once, sources) for balancer, number in turns]
            for _ in range(rounds)
        ]
    return compared([one for one, _ in samples], [two for _, two in samples], say)


def compared(one: Sequence[Sample], two: Sequence[Sample], say: Say) -> Goal:
    """What was found, in words, and the goal."""
    gain = median([with_two.pace / alone.pace for alone, with_two in zip(one, two, strict=True)])
    share = median([max(sample.cpu_ns) / sum(sample.cpu_ns) for sample in two])
    cost = [median([sample.cost_us for sample in samples]) for samples in (one, two)]
    rate = [median([sample.count / sample.seconds for sample in samples]) for samples in (one, two)]
    say(
        f"balancer: {WORKERS} workers against one: {cost[1]:.3g} CPU us for a short connection, of all processes "
        f"together, against {cost[0]:.3g}; the busier worker has {share:.0%} of it. With a core each, by CPU time, "
        f"they carry {gain:.3g} times as many. By the wall clock, on cores shared with clients and nodes: "
        f"{rate[1]:.0f} a second against {rate[0]:.0f}"
    )
    return at_least(f"connections per second of {WORKERS} workers with a core each, over one's", gain, GOAL)
