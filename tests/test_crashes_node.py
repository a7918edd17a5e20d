"""Nodes that are killed at each step of what they do, and started again: I-4 and I-5 hold, and nobody repairs anything.

Each of several nodes dies at another step of one and the same thing; whatever is seen of any of them, alive or dead,
is one whole published version, and never an earlier one than before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.crash_farm import Mortal, MortalFarm, all_serve, content, sample, sooner_or_later
from tests.nursery import ForkedDaemons

NODES = 6
LATER = "in:3600000000000"
SOON = "in:1200000000"


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    return MortalFarm(forked, tmp_path)


def rounds(points: Sequence[int]) -> Iterator[list[int]]:
    """The points, as many at a time as there are nodes."""
    for at in range(0, len(points), NODES):
        yield list(points[at : at + NODES])


def burn(
    nodes: Sequence[Mortal], points: Sequence[int], act: Callable[[], object], done: Callable[[Mortal], bool]
) -> int:
    """Arm nodes, let something happen, and revive those that died of it once all are dead or done; how many died."""
    for node, point in zip(nodes, points, strict=False):
        node.fuse.arm(point)
    act()
    for node in nodes:
        sooner_or_later(lambda node=node: node.daemon.ended or done(node), f"{node.node.name} is done, or dead")  # type: ignore[misc]
    dead = [node for node in nodes if node.daemon.ended]
    for node in dead:
        node.look()
    for node in nodes:
        node.revive()
    return len(dead)


def test_a_node_killed_at_any_step_of_its_first_copy_comes_to_serve_it(farm: MortalFarm) -> None:
    one = farm.publish(content(1))
    trial = farm.mortal("trial", number=0)
    sooner_or_later(lambda: trial.serves(one, "ready"), "the first node serves")
    steps = trial.fuse.steps()
    assert {"replace active", "replace record"} <= set(steps)
    points = sample(len(steps), 18)
    nodes = [farm.mortal(f"web-{point}", number=point) for point in points]
    for node in nodes:
        sooner_or_later(lambda node=node: node.daemon.ended or node.serves(one, "ready"), "dead or done")  # type: ignore[misc]
    dead = [node for node in nodes if node.daemon.ended]
    assert len(dead) >= len(points) // 2
    for node in dead:
        node.look()
        node.fuse.arm(4)  # and once more, in the middle of looking what the first death has left
        node.start()
    for node in dead:
        sooner_or_later(lambda node=node: node.daemon.ended or node.serves(one, "ready"), "dead or done")  # type: ignore[misc]
        node.revive()
    all_serve(nodes, one, "ready")
    for node in nodes:
        sooner_or_later(node.is_tidy, f"{node.node.name} has left nothing behind")


def test_a_node_killed_at_any_step_of_staging_serves_on_and_completes_what_it_began(farm: MortalFarm) -> None:
    nodes = [farm.mortal(f"web-{number}") for number in range(NODES)]
    all_serve(nodes, farm.publish(content(1)))
    deaths, points = 0, [0]
    mark = 2
    for batch in ([0] * NODES, *rounds(range(NODES * 3))):
        numbers = [points[number % len(points)] for number in batch]
        version = ""

        def stage(mark: int = mark) -> None:
            nonlocal version
            version = farm.publish(content(mark), LATER)

        deaths += burn(nodes, numbers, stage, lambda node: node.has_staged(version))
        if mark == 2:
            steps = nodes[0].fuse.steps()
            assert f"rename {version}" in steps  # from what is being staged to the versions
            points = sample(len(steps), NODES * 3)
        for node in nodes:
            sooner_or_later(lambda node=node: node.has_staged(version), f"{node.node.name} has staged")  # type: ignore[misc]
        farm.again(version, SOON)
        all_serve(nodes, version)
        mark += 1
    assert deaths >= len(points) // 2
    for node in nodes:
        sooner_or_later(node.is_tidy, f"{node.node.name} has left nothing behind")


def test_a_node_killed_at_any_step_of_a_swap_and_of_clearing_away_has_one_whole_version(farm: MortalFarm) -> None:
    nodes = [farm.mortal(f"web-{number}", "--keep", "1") for number in range(NODES)]
    all_serve(nodes, farm.publish(content(1)))
    deaths, points = 0, [0]
    for mark, batch in enumerate(([0] * NODES, [0] * NODES, *rounds(range(NODES * 4))), 2):
        version = farm.publish(content(mark), LATER)
        for node in nodes:
            sooner_or_later(lambda node=node: node.has_staged(version), f"{node.node.name} has staged")  # type: ignore[misc]
        numbers = [points[number % len(points)] for number in batch]
        deaths += burn(
            nodes,
            numbers,
            lambda version=version: farm.again(version, SOON),  # type: ignore[misc]
            lambda node: node.serves(version, "ready") and node.shop()["flips_to_report"] == 0,
        )
        all_serve(nodes, version, "ready")
        if mark == 3:  # by now there was something to clear away
            steps = nodes[0].fuse.steps()
            assert {"replace active", "replace record"} <= set(steps)
            assert any(step.startswith("rmdir") for step in steps)
            points = sample(len(steps), NODES * 4)
    assert deaths >= len(points) // 2
    last = farm.publish(content(99))
    all_serve(nodes, last, "ready")
    for node in nodes:
        sooner_or_later(node.is_tidy, f"{node.node.name} has left nothing behind")
        assert len(list((node.cache / "versions").iterdir())) <= 2
