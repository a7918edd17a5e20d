"""A thousand connected nodes: what they cost the data server while nothing happens, and how soon they hear news.

Beside a thousand subscribers of a Redis, which is in C, keeps no schedule and compares no clocks: what a connection and
a word cost at the least.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil

from bench.asking import raw_ns
from bench.clients import DATASET, SPREAD_S
from bench.farm import Farm, cpu_s, load
from bench.goals import Goal, Say, at_most, median
from bench.helper import Helper
from bench.peers import PeerMissing
from bench.redis import Redis

NODES = 1_000
PROCESSES = 2
IDLE_S = 30.0
SETTLE_S = 20.0  # until the bursts at the beginning are over
NEWS = 10
_CHANNEL = "go"
_HOUR_NS = 3_600_000_000_000
_FILES = 16_384


def run(say: Say = print, nodes: int = NODES, idle_s: float = IDLE_S, news: int = NEWS) -> list[Goal]:
    """Measure, tell what was found, and give the goals."""
    _allow_files()
    say(f"nodes: {nodes} of them, connected twice each ({load()})")
    with tempfile.TemporaryDirectory(prefix="farmsync-bench-") as name:
        goals = _ours(Path(name), say, nodes, idle_s, news)
        try:
            _theirs(Path(name), say, nodes, idle_s, news)
        except PeerMissing as missing:
            say(f"nodes: {missing}")
    return goals


def _allow_files() -> None:
    """Two connections for each node need more open files than a shell usually grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ours(root: Path, say: Say, nodes: int, idle_s: float, news: int) -> list[Goal]:
    with Farm(root) as farm, ExitStack() as stack:
        tree = root / "tree"
        tree.mkdir()
        (tree / "prices.json").write_text('{"price": 100}\n')
        version = farm.publish(DATASET, tree, "--in", "36000")
        before = _memory(_pid(farm))
        crowds = [stack.enter_context(Helper("clients", [farm.port, first, count])) for first, count in _shares(nodes)]
        for crowd in crowds:
            if crowd.hear(SPREAD_S + 120) != "greeted":
                raise RuntimeError("expected all nodes to be up first")
        time.sleep(SETTLE_S)
        share = _idle(_pid(farm), idle_s)
        memory = _memory(_pid(farm))
        delays = [_news(farm, version, crowds, nodes) for _ in range(news)]
    say(
        f"nodes: idle {share:.1%} of a core over {idle_s:.0f} s; {memory:.0f} MB, {before:.0f} MB before they came; "
        f"news at every node after {median(delays):.3f} s, {max(delays):.3f} s at most, of {news}"
    )
    return [
        at_most(f"idle CPU with {nodes} nodes", share * 100, 10, "% of a core"),
        at_most(f"memory with {nodes} nodes", memory, 200, "MB"),
        at_most("from a publication's last message to every node", max(delays), 1.0, "s"),
    ]


def _theirs(root: Path, say: Say, nodes: int, idle_s: float, news: int) -> None:
    with Redis(root / "redis", nodes + 100) as redis, ExitStack() as stack:
        before = _memory(redis.pid)
        crowds = [
            stack.enter_context(Helper("crowd", [redis.port, _CHANNEL, count])) for _first, count in _shares(nodes)
        ]
        for crowd in crowds:
            crowd.hear()
        share = _idle(redis.pid, idle_s)
        memory = _memory(redis.pid)
        delays = []
        for _ in range(news):
            time.sleep(0.5)
            began = raw_ns()
            redis.publish(_CHANNEL, "now")
            delays.append(max((crowd.hear()[1] - began) / 1e9 for crowd in crowds))
    say(
        f"nodes: beside it, Redis with {nodes} subscribers: idle {share:.1%} of a core; {memory:.0f} MB, "
        f"{before:.0f} MB before they came; a word at every one after {median(delays):.3f} s, "
        f"{max(delays):.3f} s at most"
    )


def _shares(nodes: int) -> list[tuple[int, int]]:
    """The first number and the count of each process."""
    cuts = [nodes * number // PROCESSES for number in range(PROCESSES + 1)]
    return [(first, last - first) for first, last in pairwise(cuts)]


def _pid(farm: Farm) -> int:
    assert farm.data.process is not None
    return farm.data.process.pid


def _idle(pid: int, seconds: float) -> float:
    """The share of a core that a process uses while nothing happens."""
    cpu, began = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pid) - cpu) / (time.monotonic() - began)


def _memory(pid: int) -> float:
    """The resident memory of a process, in MB."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def _news(farm: Farm, version: str, crowds: Sequence[Helper], nodes: int) -> float:
    """Publish: the seconds from the last message of the publication until the last node has heard of it."""
    time.sleep(1.0)
    with farm.asker() as asker:
        began = raw_ns()
        asker.publish(DATASET, version, f"in:{_HOUR_NS}")
    told = [crowd.hear() for crowd in crowds]
    heard = sum(count for _revision, count, _first, _last in told)
    if heard != nodes:
        raise RuntimeError(f"expected all {nodes} nodes to hear of the news, and {heard} did")
    return max(float(last - began) / 1e9 for _revision, _count, _first, last in told)
