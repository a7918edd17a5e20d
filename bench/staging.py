"""A first copy and an update of 540 MB, for one node and for four at once, beside rsync from a real rsync daemon.

Ours is timed from when the first node begins to ask until the last one has the version complete and durable, by the
nodes' own figures; what is seen from outside (from before the publication's last message until the last complete
version appears on the disk) is told beside it. Theirs is timed until the copy is synced. The same trees, the same
disk, in turns; the disk is quiet before each. An update comes a while after what it updates, as it does on a farm:
meanwhile a node that has nothing to do links its active version for the next one. Those links are no part of the time.
The other side's updates come as long after its first copies: memory that has been free for a while is slow to get
where a hypervisor has taken it back.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from bench import trees
from bench.farm import LOCAL, Farm, cpu_s, load, page, until
from bench.goals import Goal, Say, at_most, median, ratio
from bench.peers import PeerMissing
from bench.rsyncd import RsyncDaemon
from farmsyncd.node.staging.spare import WORTH_IT
from tests.daemons import Daemon

SAMPLES = 3
IDLE_S = 15.0  # between what is updated and the update: in this time a node makes links ahead
CROWDS = (1, 4)
STEPS = ("first copy", "update")
_HOUR = "in:3600000000000"
_CONFIG = '[node]\ncheck = "stat"\n[node.staging]\nspread = "0s"\n'
_MB = 1e6


@attrs.frozen
class Figure:
    """One step of one side: seconds, bytes that each node had on the wire, the server's CPU seconds."""

    seconds: float
    wire_bytes: float
    cpu_s: float
    outside_s: float | None = None


@attrs.define
class Figures:
    """All samples, by side (``ours``, ``theirs``), step, and number of nodes."""

    samples: dict[tuple[str, str, int], list[Figure]] = attrs.Factory(dict)

    def add(self, side: str, step: str, nodes: int, figure: Figure) -> None:
        """Take one down."""
        self.samples.setdefault((side, step, nodes), []).append(figure)

    def median(self, side: str, step: str, nodes: int, what: str) -> float:
        """The median of one figure."""
        return median([getattr(each, what) for each in self.samples[side, step, nodes]])

    def cpu_per_node(self, side: str, step: str) -> float:
        """The server's CPU seconds for each node more."""
        few, many = CROWDS
        more = self.median(side, step, many, "cpu_s") - self.median(side, step, few, "cpu_s")
        return max(0.0, more / (many - few))


def run(say: Say = print, shape: trees.Shape | None = None, samples: int = SAMPLES) -> list[Goal]:
    """Measure, tell what was found, and give the goals."""
    shape = shape if shape is not None else trees.Shape()
    with tempfile.TemporaryDirectory(prefix="farmsync-bench-") as name, ExitStack() as stack:
        root = Path(name)
        say(f"staging: {shape.files} files and one of {shape.large / _MB:.0f} MB in {root} ({load()})")
        old, new = root / "tree-1", root / "tree-2"
        total = trees.first(old, shape)
        trees.second(old, new, shape)
        say(f"staging: {total / _MB:.0f} MB; then {shape.changed} files changed, {shape.inserted} bytes inserted")
        figures = Figures()
        idle_s = IDLE_S if shape.files >= WORTH_IT else 0.0
        say(f"staging: updates come {idle_s:.0f} s after the first copy, in which our nodes make links ahead")
        ours = _Ours(root, stack, (old, new), figures, say, idle_s)
        theirs: _Theirs | None = None
        try:
            theirs = _Theirs(root, stack, (old, new), figures, idle_s)
        except PeerMissing as missing:
            say(f"staging: {missing}")
        for sample in range(samples):
            for nodes in CROWDS:
                sides: list[_Ours | _Theirs] = [ours] if theirs is None else [ours, theirs]
                for side in sides if sample % 2 == 0 else reversed(sides):
                    side.sample(nodes, last=sample == samples - 1)
        return _judge(figures, say, compared=theirs is not None)


class _Ours:
    """Our side: one data server, and fresh nodes and a fresh dataset for each sample."""

    def __init__(
        self, root: Path, stack: ExitStack, versions: Sequence[Path], figures: Figures, say: Say, idle_s: float
    ) -> None:
        self._root = root
        self._trees = versions
        self._figures = figures
        self._number = 0
        self._idle_s = idle_s
        self._config = root / "node.toml"
        self._config.write_text(_CONFIG)
        self._farm = stack.enter_context(Farm(root))
        began = time.monotonic()
        # Published once for all samples: what is done once at publication is not done again for each node.
        self._old = self._farm.publish("rehearsal", versions[0], "--now")
        between = time.monotonic()
        until(lambda: self._is_active("rehearsal"), "the first publication to be active")
        again = time.monotonic()
        self._new = self._farm.publish("rehearsal", versions[1], "--in", "36000")
        say(
            f"staging: publishing took {between - began:.1f} s for the first version, "
            f"{time.monotonic() - again:.1f} s for the second; each is done once, for any number of nodes"
        )

    def _is_active(self, dataset: str) -> bool:
        found = self._farm.status()["datasets"].get(dataset)
        return found is not None and found["active"] is not None

    def sample(self, nodes: int, *, last: bool) -> None:
        """A first copy and an update on so many fresh nodes."""
        self._number += 1
        dataset = f"shop-{self._number}"
        names = [f"node-{self._number}-{which}" for which in range(nodes)]
        daemons = [
            self._farm.node(name, self._farm.port, "--dataset", dataset, "--http", LOCAL, "--config", str(self._config))
            for name in names
        ]
        for daemon in daemons:
            until(lambda daemon=daemon: page(daemon)["farm_time_ns"], f"{daemon.name} to have compared clocks")  # type: ignore[misc]
        until(lambda: set(names) <= self._connected(), "all nodes to be connected")
        self._figures.add("ours", STEPS[0], nodes, self._step(daemons, dataset, self._old, "now"))
        until(lambda: all(_serves(daemon, dataset, self._old) for daemon in daemons), "the first version to be active")
        until(lambda: self._is_active(dataset), "the data server to have rolled over")
        time.sleep(self._idle_s)
        self._figures.add("ours", STEPS[1], nodes, self._step(daemons, dataset, self._new, _HOUR))
        if last:
            _compare(self._trees[1], daemons[-1].state / dataset / "versions" / self._new)
        for daemon in daemons:
            daemon.stop()
            trees.empty(daemon.state / dataset / "versions")

    def _connected(self) -> set[str]:
        return {node["name"] for node in self._farm.status()["nodes"] if node["connected"]}

    def _step(self, daemons: Sequence[Daemon], dataset: str, version: str, when: str) -> Figure:
        complete = [daemon.state / dataset / "versions" / version for daemon in daemons]
        server = self._farm.data.process
        assert server is not None
        os.sync()
        with self._farm.asker() as asker:
            before, began = cpu_s(server.pid), time.monotonic()
            asker.publish(dataset, version, when)
        until(lambda: all(path.exists() for path in complete), f"{version} to be staged", 600, pause=0.005)
        outside = time.monotonic() - began
        until(lambda: all(_staged(daemon, version) for daemon in daemons), "the nodes to say so")
        spent = cpu_s(server.pid) - before
        told = [page(daemon)["last_staging"] for daemon in daemons]
        own_ns = max(each["ended_ns"] for each in told) - min(each["began_ns"] for each in told)
        if own_ns / 1e9 > outside + 0.1:
            raise RuntimeError(f"the nodes say that staging took {own_ns / 1e9:.2f} s, and it took {outside:.2f} s")
        return Figure(own_ns / 1e9, sum(each["bytes"] for each in told) / len(told), spent, outside)


class _Theirs:
    """The other side: rsync, with ``--link-dest`` to the copy before."""

    def __init__(self, root: Path, stack: ExitStack, versions: Sequence[Path], figures: Figures, idle_s: float) -> None:
        self._root = root / "rsync"
        self._idle_s = idle_s
        self._number = 0
        self._trees = versions
        self._figures = figures
        self._daemon = stack.enter_context(RsyncDaemon(self._root, {"old": versions[0], "new": versions[1]}))

    def sample(self, nodes: int, *, last: bool) -> None:
        """A first copy and an update to so many fresh directories."""
        self._number += 1
        places = [self._root / f"node-{self._number}-{which}" for which in range(nodes)]
        self._figures.add("theirs", STEPS[0], nodes, self._step("old", places, None))
        time.sleep(self._idle_s)
        self._figures.add("theirs", STEPS[1], nodes, self._step("new", places, "old"))
        if last:
            _compare(self._trees[1], places[-1] / "new")
        for place in places:
            trees.empty(place)

    def _step(self, module: str, places: Sequence[Path], base: str | None) -> Figure:
        os.sync()
        before = self._daemon.cpu_s()
        copied = self._daemon.copy(module, [place / module for place in places], base)
        spent = self._daemon.cpu_s() - before
        return Figure(copied.seconds, sum(copied.wire_bytes) / len(copied.wire_bytes), spent)


def _serves(daemon: Daemon, dataset: str, version: str) -> bool:
    found = page(daemon)["datasets"].get(dataset)
    return found is not None and found["active"] is not None and found["active"]["version"] == version


def _staged(daemon: Daemon, version: str) -> bool:
    last = page(daemon)["last_staging"]
    return last is not None and last["version"] == version


def _compare(tree: Path, copy: Path) -> None:
    """Whoever is fast must be right, too."""
    subprocess.run(["diff", "-rq", "--no-dereference", str(tree), str(copy)], check=True)


def _judge(figures: Figures, say: Say, *, compared: bool) -> list[Goal]:
    sides = ("ours", "theirs") if compared else ("ours",)
    for step in STEPS:
        for nodes in CROWDS:
            for side in sides:
                say(f"staging: {step}, {nodes} at once, {_told(figures, side, step, nodes)}")
    for step in STEPS:
        told = ", ".join(f"{side} {figures.cpu_per_node(side, step) * 1e3:.0f} ms" for side in sides)
        say(f"staging: {step}, the server's CPU for each node more: {told}")
    if not compared:
        return []

    def compare(step: str, nodes: int, what: str) -> float:
        return ratio(figures.median("ours", step, nodes, what), figures.median("theirs", step, nodes, what))

    found = [at_most(f"update's time over rsync's, {nodes} at once", compare("update", nodes, "seconds"), 1 / 3)
             for nodes in CROWDS]  # fmt: skip
    found += [at_most(f"update's bytes on the wire over rsync's, {nodes} at once",
                      compare("update", nodes, "wire_bytes"), 1 / 4) for nodes in CROWDS]  # fmt: skip
    first, update = (ratio(figures.cpu_per_node("ours", step), figures.cpu_per_node("theirs", step)) for step in STEPS)
    say(f"staging: first copy, the server's CPU for each node more over rsync's: {first:.3g}; most is the kernel's TCP")
    found.append(at_most("update's server CPU for each node more over rsync's", update, 1 / 10))
    found += [at_most(f"first copy's time over rsync's, {nodes} at once", compare("first copy", nodes, "seconds"), 1)
              for nodes in CROWDS]  # fmt: skip
    return found


def _told(figures: Figures, side: str, step: str, nodes: int) -> str:
    samples = figures.samples[side, step, nodes]
    seconds = ", ".join(f"{each.seconds:.2f}" for each in samples)
    outside = [each.outside_s for each in samples if each.outside_s is not None]
    return (
        f"{side}: {figures.median(side, step, nodes, 'seconds'):.2f} s of ({seconds})"
        f"{f', {median(outside):.2f} s from outside' if outside else ''}, "
        f"{figures.median(side, step, nodes, 'wire_bytes') / _MB:.2f} MB each, "
        f"server {figures.median(side, step, nodes, 'cpu_s'):.2f} s of CPU"
    )
