"""The balancer beside HAProxy and nginx's stream module: what each connection, request, gigabyte and idle client costs.

All stand before the same two web servers and are asked by the same process of clients, in turns. What counts is the CPU
time of the balancer's own processes, the kernel's work in their name included: it is steadier than the wall clock, and
on a machine whose cores all are busy it is what is left for others. The median of a few rounds is told.

For memory, each balancer is started afresh: its processes' own bytes (PSS) with thousands of idle clients, less those
before they came. The kernel's part for the sockets is nobody's account, so it is told beside, for the whole machine:
the clients' and the nodes' sockets are in it, which are the same for all. :mod:`bench.workers` has two workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import attrs

from bench import workers
from bench.balancers import Balancer, HAProxy, NginxStream, Nodes, Ours, kernel_memory
from bench.goals import Goal, Say, at_most, median, ratio
from bench.helper import Helper
from bench.peers import PeerMissing

ROUNDS = 5
_PATIENCE = 300.0
_GB = 1e9
OURS = "farmsync-lb"


@attrs.frozen
class Size:
    """How much of everything."""

    short: int = 6000
    kept: int = 40_000
    at_once: int = 64
    sources: int = 2000
    bulk: int = 512 << 20
    downloads: int = 4
    idle: int = 5000
    first: int = 64
    """Clients that came and went before the idle ones are counted: what the first of them costs is none of theirs."""


@attrs.define
class Figures:
    """What was measured: by what it is, and by whose it is."""

    samples: dict[tuple[str, str], list[float]] = attrs.Factory(dict)

    def add(self, what: str, whose: str, figure: float) -> None:
        """One more."""
        self.samples.setdefault((what, whose), []).append(figure)

    def median(self, what: str, whose: str) -> float:
        """The middle of those."""
        return median(self.samples[what, whose])


def run(say: Say = print, size: Size | None = None, rounds: int = ROUNDS) -> list[Goal]:
    """Measure, tell what was found, and give the goals; none of them when there is no nginx for the nodes."""
    size = size if size is not None else Size()
    figures = Figures()
    with ExitStack() as stack:
        try:
            nodes = stack.enter_context(Nodes(size.bulk))
        except PeerMissing as missing:
            say(f"balancer: {missing}")
            return []
        shoppers = stack.enter_context(Helper("shoppers", None))
        kinds = _kinds(nodes)
        with ExitStack() as running:
            balancers = _started(kinds, running, say)
            for each in balancers:  # the first of everything is not like the others
                _ask(each, shoppers, do="short", count=size.at_once * 4, at_once=size.at_once, sources=size.sources)
            for number in range(rounds):
                for each in balancers[number % len(balancers) :] + balancers[: number % len(balancers)]:
                    _round(each, shoppers, size, figures)
        names = [each.name for each in balancers]
        for name in names:
            with kinds[name]() as afresh:
                _memory(afresh, shoppers, size, figures)
        for what in (SHORT, KEPT, BULK, IDLE, KERNEL):
            say(f"balancer: {what}: " + ", ".join(f"{name} {figures.median(what, name):.3g}" for name in names))
        several = workers.run(nodes, shoppers, say, size.short, size.at_once, size.sources, 2 * rounds)
    return [*goals(figures, names), several]


SHORT = "CPU us for a short connection"
KEPT = "CPU us for a small request on a kept connection"
BULK = "CPU s for a gigabyte"
IDLE = "bytes for an idle connection"
KERNEL = "kernel's bytes for it, the client's and the node's ends included"


def _kinds(nodes: Nodes) -> Mapping[str, Callable[[], Balancer]]:
    return {
        OURS: lambda: Ours(nodes),
        "haproxy": lambda: HAProxy(nodes),
        "haproxy splice-auto": lambda: HAProxy(nodes, "splice-auto"),
        "nginx stream": lambda: NginxStream(nodes),
    }


def _started(kinds: Mapping[str, Callable[[], Balancer]], stack: ExitStack, say: Say) -> list[Balancer]:
    made: list[Balancer] = []
    for kind in kinds.values():
        try:
            made.append(stack.enter_context(kind()))
        except PeerMissing as missing:
            say(f"balancer: {missing}")
    return made


def _ask(balancer: Balancer, shoppers: Helper, **what: object) -> tuple[float, float]:
    """CPU nanoseconds of the balancer, and bytes that the clients got. Raises RuntimeError when one got none."""
    before = sum(balancer.cpu_ns().values())
    shoppers.tell({"port": balancer.port, **what})
    told = shoppers.hear(_PATIENCE)
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} connections by {balancer.name} ended badly")
    return sum(balancer.cpu_ns().values()) - before, told["bytes"]


def _round(balancer: Balancer, shoppers: Helper, size: Size, figures: Figures) -> None:
    many = {"at_once": size.at_once, "sources": size.sources}
    used, _ = _ask(balancer, shoppers, do="short", count=size.short, **many)
    figures.add(SHORT, balancer.name, used / 1e3 / size.short)
    used, _ = _ask(balancer, shoppers, do="kept", count=size.kept, **many)
    figures.add(KEPT, balancer.name, used / 1e3 / size.kept)
    used, got = _ask(balancer, shoppers, do="bulk", count=size.downloads, at_once=2, sources=2, path="/bulk")
    figures.add(BULK, balancer.name, used / 1e9 / (got / _GB))


def _memory(balancer: Balancer, shoppers: Helper, size: Size, figures: Figures) -> None:
    """Each once, and of a balancer that has had few clients: what was allocated for others would be used again."""
    _ask(balancer, shoppers, do="short", count=size.first, at_once=1, sources=1)
    before, kernel = balancer.memory(), kernel_memory()
    _ask(balancer, shoppers, do="idle", count=size.idle, sources=size.sources)
    figures.add(IDLE, balancer.name, (balancer.memory() - before) / size.idle)
    figures.add(KERNEL, balancer.name, (kernel_memory() - kernel) / size.idle)
    shoppers.tell({"do": "leave"})
    shoppers.hear(_PATIENCE)


def goals(figures: Figures, names: list[str]) -> list[Goal]:
    """What is promised beside those that were there."""
    found_goals = []
    for what, peer, most in (
        (SHORT, "haproxy", 1.6),
        (KEPT, "haproxy", 1.4),
        (BULK, "haproxy", 0.5),
        (BULK, "haproxy splice-auto", 1.0),
        (IDLE, "haproxy", 1.5),
    ):
        if peer in names:
            found = ratio(figures.median(what, OURS), figures.median(what, peer))
            found_goals.append(at_most(f"{what}, over {peer}'s", found, most))
    return found_goals


if __name__ == "__main__":
    for goal in run():
        print(goal)
