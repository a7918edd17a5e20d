"""The balancer beside HAProxy and nginx's stream module: what each connection, request, gigabyte and idle client costs.

All stand before the same two web servers and are asked by the same process of clients, in turns. What counts is the CPU
time of the balancer's own process, the kernel's work in its name included: it is steadier than the wall clock, and on a
machine whose cores all are busy it is what is left for others. The median of a few rounds is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import attrs

from bench.balancers import Balancer, HAProxy, NginxStream, Nodes, Ours
from bench.goals import Goal, Say, at_most, median, ratio
from bench.helper import Helper
from bench.peers import PeerMissing

ROUNDS = 5
_PATIENCE = 300.0
_GB = 1e9


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
        balancers = _balancers(nodes, stack, say)
        shoppers = stack.enter_context(Helper("shoppers", None))
        for each in balancers:  # the first of everything is not like the others
            _ask(each, shoppers, do="short", count=size.at_once * 4, at_once=size.at_once, sources=size.sources)
        for number in range(rounds):
            for each in balancers[number % len(balancers) :] + balancers[: number % len(balancers)]:
                _round(each, shoppers, size, figures)
        for each in balancers:
            _memory(each, shoppers, size, figures)
    names = [each.name for each in balancers]
    for what in (SHORT, KEPT, BULK, IDLE):
        say(f"balancer: {what}: " + ", ".join(f"{name} {figures.median(what, name):.3g}" for name in names))
    return _goals(figures, names)


SHORT = "CPU us for a short connection"
KEPT = "CPU us for a small request on a kept connection"
BULK = "CPU s for a gigabyte"
IDLE = "bytes for an idle connection"


def _balancers(nodes: Nodes, stack: ExitStack, say: Say) -> list[Balancer]:
    made: list[Balancer] = [stack.enter_context(Ours(nodes))]
    peers: Sequence[Callable[[], Balancer]] = (
        lambda: HAProxy(nodes),
        lambda: HAProxy(nodes, "splice-auto"),
        lambda: NginxStream(nodes),
    )
    for peer in peers:
        try:
            made.append(stack.enter_context(peer()))
        except PeerMissing as missing:
            say(f"balancer: {missing}")
    return made


def _ask(balancer: Balancer, shoppers: Helper, **what: object) -> tuple[float, float]:
    """CPU nanoseconds of the balancer, and bytes that the clients got. Raises RuntimeError when one got none."""
    before = balancer.cpu_ns()
    shoppers.tell({"port": balancer.port, **what})
    told = shoppers.hear(_PATIENCE)
    if told["failed"]:
        raise RuntimeError(f"{told['failed']} connections by {balancer.name} ended badly")
    return balancer.cpu_ns() - before, told["bytes"]


def _round(balancer: Balancer, shoppers: Helper, size: Size, figures: Figures) -> None:
    many = {"at_once": size.at_once, "sources": size.sources}
    used, _ = _ask(balancer, shoppers, do="short", count=size.short, **many)
    figures.add(SHORT, balancer.name, used / 1e3 / size.short)
    used, _ = _ask(balancer, shoppers, do="kept", count=size.kept, **many)
    figures.add(KEPT, balancer.name, used / 1e3 / size.kept)
    used, got = _ask(balancer, shoppers, do="bulk", count=size.downloads, at_once=2, sources=2, path="/bulk")
    figures.add(BULK, balancer.name, used / 1e9 / (got / _GB))


def _memory(balancer: Balancer, shoppers: Helper, size: Size, figures: Figures) -> None:
    """Each once: what has been allocated is used again, so that a second time says nothing."""
    before = balancer.memory()
    _ask(balancer, shoppers, do="idle", count=size.idle, sources=size.sources)
    figures.add(IDLE, balancer.name, (balancer.memory() - before) / size.idle)
    shoppers.tell({"do": "leave"})
    shoppers.hear(_PATIENCE)


def _goals(figures: Figures, names: list[str]) -> list[Goal]:
    ours, *others = names
    goals = []
    for what, peer, most in (
        (SHORT, "haproxy", 1.6),
        (KEPT, "haproxy", 1.4),
        (BULK, "haproxy", 0.5),
        (BULK, "haproxy splice-auto", 1.0),
        (IDLE, "haproxy", 1.5),
    ):
        if peer in others:
            found = ratio(figures.median(what, ours), figures.median(what, peer))
            goals.append(at_most(f"{what}, over {peer}'s", found, most))
    return goals


if __name__ == "__main__":
    for goal in run():
        print(goal)
