"""How far apart a farm's flips are, beside a "go now" that Redis publishes. Truth is the machine's one clock.

Eight nodes whose clocks are wrong by up to an hour and 200 ppm, each behind a relay that delays it by 0 to 40 ms each
way. Twenty activations, and between them twenty words that eight subscribers of a Redis wait for, behind relays of the
same delays. One process outside of all sees the links being renamed. Readers of the nodes' versions, in processes of
their own, say when they saw them change.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from bench import goals
from bench.asking import FarmTime, farm_time, raw_ns
from bench.farm import Farm, load, until
from bench.goals import Goal, Say, at_least, at_most, median, percentile
from bench.helper import Helper
from bench.peers import PeerMissing
from bench.redis import Redis
from bench.subscriber import CHANNEL
from farmsyncd.core.messages.operating import Report

SKEWS = ("3600,200", "-3600,-200", "1800,-150", "-900,150", "60,100", "-1,-100", "0.25,50", "0,-200")
DELAYS = tuple(0.040 * number / (len(SKEWS) - 1) for number in range(len(SKEWS)))
ACTIVATIONS = 20
LEAD_NS = 7_000_000_000
DATASET = "shop"
MILLI = 1e6


@attrs.frozen
class Switch:
    """What one reader saw of one flip: the old version still at ``before``, the new one at ``after``; machine time."""

    node: str
    activation: int
    before: int
    after: int

    def outside_ns(self, due: int, bound: int) -> int:
        """By how much it certainly lay outside of ``due`` plus or minus ``bound``; 0 if it may have lain inside."""
        return max(0, self.before - (due + bound), (due - bound) - self.after)


@attrs.define
class Round:
    """One activation: when it was due, by the machine's clock, and when each node's link was seen to change."""

    cycle: int
    due: int
    links: dict[int, int]
    switches: list[Switch]


@attrs.frozen
class Resolution:
    """How late the watcher sees a rename after it began, in nanoseconds: one alone, and eight at once."""

    alone: list[int]
    crowd: list[int]

    def __str__(self) -> str:
        told = [
            f"{median(each) / 1e3:.0f} us (p99 {percentile(each, 99) / 1e3:.0f})" for each in (self.alone, self.crowd)
        ]
        return f"the watcher sees one rename after {told[0]}, each of eight at once after {told[1]}"


def spread(links: dict[int, int]) -> int:
    """From the first to the last, in nanoseconds."""
    return max(links.values()) - min(links.values())


def run(say: Say = print) -> list[Goal]:
    """Measure, tell what was found, and give the goals."""
    say(f"flip: {len(SKEWS)} nodes, {ACTIVATIONS} activations ({load()})")
    with tempfile.TemporaryDirectory(prefix="farmsync-bench-") as name, ExitStack() as stack:
        return _Flip(Path(name), stack, say).run()


class _Flip:
    def __init__(self, root: Path, stack: ExitStack, say: Say) -> None:
        self._root = root
        self._stack = stack
        self._say = say
        self._farm = stack.enter_context(Farm(root))
        self._nodes = [f"web{number + 1}" for number in range(len(SKEWS))]
        self._redis = self._start_redis()
        self._readers: list[Helper] = []

    def run(self) -> list[Goal]:
        """The whole benchmark."""
        versions = self._start()
        watched = [self._cache(node) for node in self._nodes]
        peers, practice = self._places("peer"), self._places("practice")
        watcher = self._stack.enter_context(Helper("watcher", [str(path) for path in (*watched, *peers, *practice)]))
        ahead = watcher.hear()["ahead"]
        self._subscribe(peers)
        self._readers = [self._stack.enter_context(Helper("switching", str(path))) for path in watched]
        resolution = _practise(watcher, practice, 2 * len(SKEWS))
        self._say(f"flip: {resolution}{'' if ahead else '; it may not go ahead of others here'}")
        farm = farm_time(self._farm.port)
        self._say(f"flip: farm time is known here to {farm.doubt_ns / 1e3:.0f} us")
        rounds: list[Round] = []
        words: list[dict[int, int]] = []
        for number in range(ACTIVATIONS):
            rounds.append(self._activate(number, versions[(number + 1) % 2], watcher, farm))
            if self._redis is not None:
                self._redis.publish(CHANNEL, "now")
                words.append(_seen(watcher, len(SKEWS), len(SKEWS)))
        time.sleep(1)  # the last reports
        return self._judge(rounds, words, farm)

    def _start_redis(self) -> Redis | None:
        try:
            return self._stack.enter_context(Redis(self._root / "redis"))
        except PeerMissing as missing:
            self._say(f"flip: {missing}")
            return None

    def _start(self) -> list[str]:
        """Bring the farm up, both versions known to it and the second one active; the versions."""
        port = self._farm.port
        self._relays = [[port, delay] for delay in DELAYS]
        if self._redis is not None:
            self._relays += [[self._redis.port, delay] for delay in DELAYS]
        relay = self._stack.enter_context(Helper("relay", self._relays))
        self._ports: list[int] = relay.hear()
        for node, skew, at in zip(self._nodes, SKEWS, self._ports, strict=False):
            self._farm.node(node, at, f"--skew={skew}")
        versions = []
        for number in range(2):
            path = self._root / f"version-{number}"
            path.mkdir()
            (path / "prices.json").write_text(f'{{"version": {number}}}\n' * 100)
            version = self._farm.publish(DATASET, path, "--in", "8")
            until(lambda version=version: self._all_serve(version), "all nodes to serve what was published")  # type: ignore[misc]
            versions.append(version)
        # The warm-up ends with version 1 active: the first activation leads to version 0.
        return [versions[1], versions[0]]

    def _all_serve(self, version: str) -> bool:
        return [node["active"] for node in self._farm.status()["nodes"]] == [version] * len(SKEWS)

    def _cache(self, node: str) -> Path:
        return self._root / node / "state" / DATASET

    def _places(self, kind: str) -> list[Path]:
        places = [self._root / f"{kind}-{number}" for number in range(len(SKEWS))]
        for place in places:
            place.mkdir()
        return places

    def _subscribe(self, places: Sequence[Path]) -> None:
        if self._redis is None:
            return
        for place, port in zip(places, self._ports[len(SKEWS) :], strict=True):
            subscriber = self._stack.enter_context(Helper("subscriber", [port, str(place)]))
            subscriber.hear()

    def _activate(self, number: int, version: str, watcher: Helper, farm: FarmTime) -> Round:
        with self._farm.asker() as asker:
            accepted = asker.publish(DATASET, version, f"in:{LEAD_NS}")
        due = farm.machine_ns(accepted.activates_at)
        for which, reader in enumerate(self._readers):
            reader.tell([due, which == number % len(self._readers)])
        links = _seen(watcher, 0, len(SKEWS), (due - raw_ns()) / 1e9 + 30)
        switches = [
            Switch(node, number, *reader.hear()) for node, reader in zip(self._nodes, self._readers, strict=True)
        ]
        time.sleep(max(0.0, (due - raw_ns()) / 1e9 + 1.5))  # the roll-over is done, too
        return Round(accepted.cycle, due, links, switches)

    # What was found

    def _judge(self, rounds: Sequence[Round], words: Sequence[dict[int, int]], farm: FarmTime) -> list[Goal]:
        spreads = [spread(one.links) / MILLI for one in rounds]
        late = [(stamp - one.due) / MILLI for one in rounds for stamp in one.links.values()]
        self._tell("spread", spreads, "ms")
        self._say(
            f"flip: links changed {min(late):+.3f} to {max(late):+.3f} ms from their time, median {median(late):+.3f}"
        )
        found = [
            at_most("spread of a flip, median", median(spreads), 1.0, "ms"),
            at_most("spread of a flip, p99", percentile(spreads, 99), 5.0, "ms"),
        ]
        if words:
            theirs = [spread(word) / MILLI for word in words]
            self._tell("spread of Redis's word", theirs, "ms")
            found.append(at_least("times tighter than Redis's word", goals.ratio(median(theirs), median(spreads)), 20))
        return [*found, self._judge_bounds(rounds, farm)]

    def _judge_bounds(self, rounds: Sequence[Round], farm: FarmTime) -> Goal:
        """Each reader against the error bound that its node reported for that flip."""
        outside, wrong, bounds = 0, 0, []
        with self._farm.asker() as asker:
            for one in rounds:
                report: dict[str, Any] = asker.json(Report(DATASET, one.cycle))
                nodes = {node["name"]: node for node in report["nodes"]}
                for which, switch in enumerate(one.switches):
                    told = nodes[switch.node]
                    bound = told["error_bound_ns"] + farm.doubt_ns
                    bounds.append(told["error_bound_ns"] / MILLI)
                    outside += switch.outside_ns(one.due, bound) > 0
                    off = abs(farm.machine_ns(told["activated_at_ns"]) - one.links[which])
                    wrong += off > bound + MILLI  # the watcher, and the node's own stamp, have their delays
        old = max((switch.before - one.due) / MILLI for one in rounds for switch in one.switches)
        new = min((switch.after - one.due) / MILLI for one in rounds for switch in one.switches)
        total = len(bounds)
        self._say(
            f"flip: error bounds {min(bounds):.3f} to {max(bounds):.3f} ms; of all readers the last to read the old "
            f"version did so {old:+.3f} ms from the time of the flip, the first to read the new one {new:+.3f} ms; "
            f"{total - wrong} of {total} reported instants agree with what was seen"
        )
        return Goal(
            "readers within their clock's error bound", f"{total - outside} of {total}", f"all {total}", not outside
        )

    def _tell(self, what: str, values: Sequence[float], unit: str) -> None:
        self._say(
            f"flip: {what}: median {median(values):.3f} {unit}, p99 {percentile(values, 99):.3f}, "
            f"least {min(values):.3f}, most {max(values):.3f} of {len(values)}"
        )


def _seen(watcher: Helper, first: int, count: int, patience: float = 30.0) -> dict[int, int]:
    """The instants at which the links in ``count`` directories, from number ``first`` on, were seen to change."""
    found: dict[int, int] = {}
    while len(found) < count:
        for number, stamp in watcher.hear(patience):
            if first <= number < first + count:
                found.setdefault(number, stamp)
    return found


def _practise(watcher: Helper, places: Sequence[Path], first: int) -> Resolution:
    """Rename links at known instants, to learn how soon the watcher sees it."""
    alone = [late for _ in range(20) for late in _renamed(watcher, places[:1], first)]
    return Resolution(alone, [late for _ in range(10) for late in _renamed(watcher, places, first)])


def _renamed(watcher: Helper, places: Sequence[Path], first: int) -> list[int]:
    for place in places:
        (place / "coming").symlink_to("versions/x")
    began = []
    time.sleep(0.05)
    for place in places:
        began.append(raw_ns())
        os.rename(place / "coming", place / "active")  # noqa: PTH104 - nothing between the stamp and the rename
    seen = _seen(watcher, first, len(places))
    return [seen[first + number] - stamp for number, stamp in enumerate(began)]
