"""Nodes that are killed at each step of what they do, and started again: I-4 and I-5 hold, and nobody repairs anything.

Each of several nodes dies at another step of one and the same thing; whatever is seen of any of them, alive or dead,
is one whole published version, and never an earlier one than before. What the steps are is found by a first time in
which nobody dies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.crash_farm import (
    Mortal,
    MortalFarm,
    all_are_tidy,
    all_have_staged,
    all_serve,
    content,
    sample,
    sooner_or_later,
)
from tests.nursery import ForkedDaemons

NODES = 8
NOBODY = [0] * NODES
LATER = "in:3600000000000"
SOON = "in:1000000000"


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    return MortalFarm(forked, tmp_path)


def rounds(steps: Sequence[str], times: int) -> Iterator[list[int]]:
    """Numbers of steps, spread over all of them: in each round one for each node, as far as there are any."""
    points = sample(len(steps), NODES * times)
    for at in range(0, len(points), NODES):
        yield points[at : at + NODES]


def burn(
    nodes: Sequence[Mortal], points: Sequence[int], act: Callable[[], object], done: Callable[[Mortal], bool]
) -> int:
    """Arm nodes, let something happen, and revive those that died of it once all are dead or done; how many died."""
    for node, point in zip(nodes, points, strict=False):
        node.fuse.arm(point)
    act()
    return bury(nodes, done)


def bury(nodes: Sequence[Mortal], done: Callable[[Mortal], bool]) -> int:
    """Wait until all nodes are dead or done, and start the dead ones again; how many died."""
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
    assert {"replace active", "replace record", f"rename {one}"} <= set(steps)
    points = sample(len(steps), 18)
    nodes = [farm.mortal(f"web-{point}", number=point) for point in points]
    for node in nodes:
        sooner_or_later(lambda node=node: node.daemon.ended or node.serves(one, "ready"), "dead or done")  # type: ignore[misc]
    dead = [node for node in nodes if node.daemon.ended]
    assert dead
    for node in dead:
        node.look()
        node.fuse.arm(4)  # and once more, while it looks at what the first death has left
        node.start()
    bury(dead, lambda node: node.serves(one, "ready"))
    all_serve(nodes, one, "ready")
    all_are_tidy(nodes)


def test_a_node_killed_at_any_step_of_staging_serves_on_and_completes_what_it_began(farm: MortalFarm) -> None:
    nodes = [farm.mortal(f"web-{number}") for number in range(NODES)]
    all_serve(nodes, farm.publish(content(1)))

    def stage(mark: int, points: Sequence[int]) -> int:
        """Publish; nodes die while they stage it, and all complete it; then it becomes active. How many died."""
        published: list[str] = []
        deaths = burn(
            nodes,
            points,
            lambda: published.append(farm.publish(content(mark), LATER)),
            lambda node: node.has_staged(published[0]),
        )
        all_have_staged(nodes, published[0])
        farm.again(published[0], SOON)
        all_serve(nodes, published[0])
        return deaths

    stage(2, NOBODY)
    steps = nodes[0].fuse.steps()
    assert f"rename {farm.versions.order[-1]}" in steps  # from what is being staged to the versions
    deaths = [stage(mark, points) for mark, points in enumerate(rounds(steps, 2), 3)]
    assert sum(deaths) > 0
    all_are_tidy(nodes)


def test_a_node_killed_at_any_step_of_a_swap_and_of_clearing_away_has_one_whole_version(farm: MortalFarm) -> None:
    nodes = [farm.mortal(f"web-{number}", "--keep", "1") for number in range(NODES)]
    all_serve(nodes, farm.publish(content(1)))

    def swap(mark: int, points: Sequence[int]) -> int:
        """Publish; nodes die while they swap to it, and all come to serve it. How many died."""
        version = farm.publish(content(mark), LATER)
        all_have_staged(nodes, version)
        deaths = burn(nodes, points, partial(farm.again, version, SOON), partial(has_swapped, version=version))
        all_serve(nodes, version, "ready")
        return deaths

    swap(2, NOBODY)  # from now on each swap has an old version to clear away
    swap(3, NOBODY)
    steps = nodes[0].fuse.steps()
    assert {"replace active", "replace record"} <= set(steps)
    assert any(step.startswith("rmdir") for step in steps)
    deaths = [swap(mark, points) for mark, points in enumerate(rounds(steps, 2), 4)]
    assert sum(deaths) > 0
    swap(99, NOBODY)
    all_are_tidy(nodes)
    assert all(len(list((node.cache / "versions").iterdir())) <= 2 for node in nodes)


def has_swapped(node: Mortal, version: str) -> bool:
    """Whether it serves the version, and the data server has its report."""
    return node.serves(version, "ready") and node.shop().get("flips_to_report") == 0
