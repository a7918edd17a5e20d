"""Staged beforehand, swapped by a pointer: claims S1.02, S1.03 and S1.04, on real daemons."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.eventually import eventually
from tests.farm import Farm

ONE = {"prices.json": b'{"tea": 1}', "same.txt": b"always the same", "img/logo.png": bytes(range(256)) * 40}
TWO = {**ONE, "prices.json": b'{"tea": 2}', "new.txt": b"new"}


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    return Farm(daemons, tmp_path)


def test_claim_s1_02_updates_are_brought_into_the_staging_cache_while_the_active_cache_serves(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    two = farm.stage(TWO)
    staged = node.cache / "versions" / two
    assert (staged / "prices.json").read_bytes() == TWO["prices.json"]
    assert (staged / "new.txt").read_bytes() == b"new"
    answer = node.get("/shop/prices.json")
    assert (answer.code, answer.version, answer.body) == (200, one, ONE["prices.json"])
    assert node.get("/shop/new.txt").code == 404
    assert node.linked() == one


def test_claim_s1_03_nodes_stage_at_their_own_pace_and_serving_never_waits(farm: Farm, tmp_path: Path) -> None:
    slow_config = tmp_path / "slow.toml"
    slow_config.write_text('[node.staging]\nrate = "64KiB"\n')
    fast = farm.node("fast")
    slow = farm.node("slow", "--config", str(slow_config))
    one = farm.publish(ONE)
    farm.settled(one)
    # Eight megabytes at 64 KiB/s take two minutes: the slow node is in the middle of it for the whole test.
    two = farm.publish({**TWO, "big.bin": random.Random(3).randbytes(8_000_000)}, "--in", "4")
    eventually(lambda: fast.serves(two, state="ready"), what="the fast node flips")
    eventually(lambda: slow.shop()["state"] == "late", what="the slow node says that it is late")
    answer = slow.get("/shop/prices.json")
    assert (answer.code, answer.version, answer.body) == (200, one, ONE["prices.json"])
    assert slow.linked() == one
    slow_config.write_text("[node]\n")
    slow.daemon.stop()
    slow.daemon.start()
    eventually(lambda: slow.serves(two, state="ready"), what="the slow node catches up as soon as it can")
    report = farm.whole_report(two)
    lateness = {one["name"]: one["lateness_ns"] for one in report["nodes"]}
    assert set(lateness) == {"fast", "slow"}
    assert lateness["slow"] > lateness["fast"]


def test_claim_s1_04_the_swap_is_of_a_pointer_and_never_a_copy_or_a_mixture(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    two = farm.stage(TWO)
    staged = node.cache / "versions" / two
    inodes = {path.relative_to(staged): path.stat().st_ino for path in [staged, *staged.rglob("*")]}
    assert farm.publish(TWO) == two
    content = {one: ONE["prices.json"], two: TWO["prices.json"]}
    seen: list[str] = []

    def watch() -> bool:
        active = node.cache / "active"
        linked = active.readlink().name
        answer = node.get("/shop/prices.json")
        assert answer.code == 200
        assert answer.version is not None
        assert answer.body == content[answer.version]
        assert (node.cache / "versions" / linked / "prices.json").read_bytes() == content[linked]
        seen.extend([linked, answer.version])
        return linked == two and answer.version == two

    eventually(watch, what="the node flips")
    assert set(seen) <= {one, two}
    served = node.cache / "active"
    assert served.is_symlink()
    assert {path.relative_to(staged): path.stat().st_ino for path in [staged, *staged.rglob("*")]} == inodes
    assert (served / "prices.json").stat().st_ino == inodes[Path("prices.json")]
    assert {path.name for path in served.iterdir()} == {"prices.json", "same.txt", "img", "new.txt"}
