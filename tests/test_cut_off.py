"""Connections that are cut in the middle of staging: what arrived is not fetched again, and a flip is never missed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.crash_farm import Mortal, MortalFarm, all_have_staged, all_serve, content, sooner_or_later
from tests.cutting_relay import CuttingRelay
from tests.nursery import ForkedDaemons

LATER = "in:3600000000000"
FILES, SIZE = 40, 100_000
LOST = SIZE + 20_000  # bytes that a cut may cost: the chunk in which it came, a greeting, a manifest


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    return MortalFarm(forked, tmp_path)


def bulky(mark: int) -> dict[str, bytes]:
    """Four megabytes that no compression makes less of, in files of one chunk each."""
    random = Random(mark)
    return {"index.html": b"%d\n" % mark, **{f"part-{number:02}": random.randbytes(SIZE) for number in range(FILES)}}


@contextmanager
def relayed(farm: MortalFarm, name: str, cuts: list[int | None]) -> Iterator[tuple[Mortal, CuttingRelay]]:
    """A node whose connections all go through a relay; it is dead when the block is over."""
    with CuttingRelay(farm.address, "stager", cuts) as relay:
        direct, farm.address = farm.address, relay.address
        try:
            node = farm.mortal(name)
        finally:
            farm.address = direct
        try:
            yield node, relay
        finally:
            node.daemon.kill()


def test_a_first_copy_that_is_cut_again_and_again_fetches_nothing_twice(farm: MortalFarm) -> None:
    one = farm.publish(bulky(1))
    with relayed(farm, "whole", []) as (node, relay):
        sooner_or_later(lambda: node.serves(one), "the node serves")
        needed = relay.total
    assert needed > FILES * SIZE
    cuts: list[int | None] = [100, needed // 3, needed // 3]
    with relayed(farm, "cut", list(cuts)) as (node, relay):
        sooner_or_later(lambda: node.serves(one, "ready"), "the node serves")
        sooner_or_later(node.is_tidy, "nothing half-done is left")
        assert relay.cuts == []
        assert [one.count for one in relay.passed[: len(cuts)]] == cuts
        assert relay.total < needed + len(cuts) * LOST


def test_a_step_that_is_cut_is_completed_without_what_came_and_flips_on_time(farm: MortalFarm) -> None:
    files = bulky(1)
    with relayed(farm, "web-1", []) as (node, relay):
        one = farm.publish(files)
        sooner_or_later(lambda: node.serves(one), "the node serves")
        first = relay.total
        changed = {
            **files,
            "index.html": b"2\n",
            **{f"part-{number:02}": Random(number).randbytes(SIZE) for number in range(20)},
        }
        relay.cuts.extend([700_000, 600_000])
        two = farm.publish(changed, LATER)
        sooner_or_later(lambda: node.has_staged(two), "the node has staged")
        assert relay.cuts == []
        fetched = relay.total - first
        assert 20 * SIZE < fetched < 20 * SIZE + 2 * LOST
        assert node.answers() == one
        accepted = farm.again(two, "in:1500000000")
        all_serve([node], two, "ready")
        flip = farm.flips(accepted.cycle, "web-1")["web-1"]
        assert flip["activated_at_ns"] + flip["error_bound_ns"] >= accepted.activates_at


def test_a_node_killed_in_the_middle_of_staging_fetches_only_the_rest(farm: MortalFarm) -> None:
    one = farm.publish(bulky(1))
    with relayed(farm, "whole", []) as (node, relay):
        sooner_or_later(lambda: node.serves(one), "the node serves")
        needed = relay.total
    with relayed(farm, "killed", [needed // 2, *[100] * 20]) as (node, relay):
        sooner_or_later(lambda: "will be tried again" in node.daemon.log, "half of it has come, and no more comes")
        node.daemon.kill()
        node.look()
        tries = 20 - len(relay.cuts)
        relay.cuts.clear()
        node.daemon.start()
        sooner_or_later(lambda: node.serves(one, "ready"), "the node serves")
        sooner_or_later(node.is_tidy, "nothing half-done is left")
        assert needed < relay.total < needed + LOST + tries * 10_000


def test_the_data_server_killed_while_nodes_stage_from_it(farm: MortalFarm) -> None:
    nodes = [farm.mortal(f"web-{number}") for number in range(3)]
    all_serve(nodes, farm.publish(content(1)))
    for mark in (2, 3):
        version = farm.publish(bulky(mark), LATER)
        farm.data.kill()
        for node in nodes:
            node.look()
            assert node.answers() is not None
        farm.restart_data()
        all_have_staged(nodes, version)
    farm.again(version, "in:1500000000")
    all_serve(nodes, version, "ready")
