"""Readers in processes of their own, while their node is killed and started again, at any time: they never notice."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO, cast

import attrs
import pytest

from farmsyncd.reader import ActiveCache
from tests.crash_farm import PATIENCE, Mortal, MortalFarm, Versions, all_serve, content, machine_ns, sooner_or_later
from tests.daemons import environment
from tests.eventually import eventually
from tests.nursery import ForkedDaemons

LATER = "in:3600000000000"

_READER = """
import json, sys, time
from farmsyncd.reader import ActiveCache
cache, last = ActiveCache(sys.argv[1]), None
while True:
    with cache.snapshot() as snap:
        version, said = snap.version, [snap["index.html"], snap.path("also/index.html").read_bytes()]
        if version != last:
            said += [snap[name] for name in snap]
            print(json.dumps([version, sorted({one.decode() for one in said})]), flush=True)
        elif len(set(said)) > 1:
            sys.exit(f"a mixture in {version}: {said}")
    last = version
    time.sleep(0.002)
"""


@attrs.define
class Witness:
    """A process that reads all the time, and says each version that it comes to, with what it has read of it."""

    process: subprocess.Popen[bytes]
    said: list[tuple[str, list[str]]] = attrs.Factory(list)
    trouble: list[str] = attrs.Factory(list)

    def listen(self) -> None:
        for line in cast("IO[bytes]", self.process.stdout):
            version, contents = json.loads(line)
            self.said.append((version, contents))
        self.trouble.append(cast("IO[bytes]", self.process.stderr).read().decode())

    def is_at(self, version: str) -> bool:
        """Whether what it came to last is ``version``."""
        assert self.process.poll() is None, self.trouble
        return bool(self.said) and self.said[-1][0] == version

    def check(self, versions: Versions) -> None:
        """It has come to whole published versions only, each once, in their order."""
        ranks = [versions.rank(version) for version, _ in self.said]
        assert ranks == sorted(set(ranks))
        for version, contents in self.said:
            assert contents == sorted({one.decode() for one in versions.files[version].values()})


@contextmanager
def witness(cache: Path) -> Iterator[Witness]:
    """One that runs for as long as the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _READER, str(cache)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    one = Witness(process)
    thread = threading.Thread(target=one.listen)
    thread.start()
    try:
        yield one
    finally:
        process.kill()
        process.wait()
        thread.join()
        for pipe in (process.stdout, process.stderr):
            cast("IO[bytes]", pipe).close()


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    return MortalFarm(forked, tmp_path)


def stage(farm: MortalFarm, node: Mortal, mark: int) -> str:
    """Have the node stage a version that is not due for long."""
    version = farm.publish(content(mark), LATER)
    sooner_or_later(lambda: node.has_staged(version), "the node has staged")
    return version


def knows(node: Mortal, version: str) -> bool:
    """Whether readers on the node's machine know by now when ``version`` comes, within seconds; or it has come."""
    pointer = node.node.pointer()
    assert pointer is not None
    coming = pointer.flips_at_machine_ns
    near = coming is not None and coming - machine_ns() < 60 * 10**9
    return pointer.active_version == version or (pointer.next_version == version and near)


def test_readers_flip_at_the_time_although_their_node_is_dead(farm: MortalFarm) -> None:
    node = farm.mortal("web-1", "--keep", "1")
    one = farm.publish(content(1))
    all_serve([node], one)
    with witness(node.cache) as first, witness(node.cache) as second:
        for reader in (first, second):
            sooner_or_later(lambda reader=reader: reader.is_at(one), "a reader reads")  # type: ignore[misc]
        for mark in (2, 3):
            version = stage(farm, node, mark)
            farm.again(version, "in:1500000000")
            sooner_or_later(lambda version=version: knows(node, version), "readers know the time")  # type: ignore[misc]
            node.daemon.kill()
            for reader in (first, second):
                sooner_or_later(lambda reader=reader, version=version: reader.is_at(version), "a reader has flipped")  # type: ignore[misc]
            node.look()
            node.start()
            all_serve([node], version)
    for reader in (first, second):
        reader.check(farm.versions)
        assert [version for version, _ in reader.said] == farm.versions.order


def test_readers_never_see_anything_but_whole_versions_while_their_node_dies_at_any_moment(farm: MortalFarm) -> None:
    random = Random(4711)
    node = farm.mortal("web-1", "--keep", "1")
    version = farm.publish(content(1))
    all_serve([node], version)
    with witness(node.cache) as first, witness(node.cache) as second:
        for mark in range(2, 8):
            version = stage(farm, node, mark)
            farm.again(version, "in:600000000")
            for _ in range(2):
                node.fuse.arm(random.randrange(1, 30))
                with_patience = random.choice([0.1, 0.4, 0.7])
                threading.Event().wait(with_patience)  # any moment will do
                node.daemon.kill()
                node.fuse.disarm()
                node.look()
                node.daemon.start()
            all_serve([node], version)
            for reader in (first, second):
                sooner_or_later(lambda reader=reader, version=version: reader.is_at(version), "a reader follows")  # type: ignore[misc]
    for reader in (first, second):
        reader.check(farm.versions)


def test_a_version_that_a_reader_uses_stays_through_flips_deaths_and_clearing_away(farm: MortalFarm) -> None:
    node = farm.mortal("web-1", "--keep", "1")
    one = farm.publish(content(1))
    all_serve([node], one)
    directory = node.cache / "versions" / one
    cache = ActiveCache(node.cache)
    with cache.snapshot() as held:
        assert held.version == one
        for mark in (2, 3, 4):
            version = farm.publish(content(mark))
            all_serve([node], version, "ready")
            node.daemon.kill()
            node.daemon.start()
            all_serve([node], version, "ready")
            with cache.snapshot() as now:
                assert now.version == version
            assert {name: held.path(name).read_bytes() for name in held} == content(1)
            assert "also/deep/prices.json" in held
    cache.close()
    mark = 4

    def cleared() -> bool:
        """A version that was leased goes when the node looks again, which it does after each flip."""
        nonlocal mark
        mark += 1
        all_serve([node], farm.publish(content(mark)), "ready")
        return not directory.exists()

    eventually(cleared, PATIENCE, "the version is removed once nobody uses it")
