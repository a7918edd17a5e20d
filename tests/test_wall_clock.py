"""Clocks that are set while a flip is pending: the wall clock of any machine, and the raw clock by a reboot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from farmsyncd.edges.cache.pointerfile import boot_id
from farmsyncd.edges.timing.alarm import Alarm
from farmsyncd.edges.timing.clocks import RawClock
from farmsyncd.edges.timing.farmclock import FarmClock
from farmsyncd.edges.timing.steady import SteadyTime
from farmsyncd.edges.timing.trigger import Trigger
from tests import timens
from tests.crash_farm import SECOND, Mortal, MortalFarm, all_have_staged, all_serve, content, sooner_or_later
from tests.nursery import ForkedDaemon, ForkedDaemons

LATER = "in:3600000000000"
HOUR = 3600.0


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    forked.next_plan = {"wall": str(tmp_path / "wall-data")}
    return MortalFarm(forked, tmp_path)


@attrs.define
class Wall:
    """The reactor's wall clock, and this process's, which the test sets."""

    ahead: float = 0.0


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    from twisted.internet import reactor

    one, real, real_ns = Wall(), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + one.ahead)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + round(one.ahead * 1e9))
    monkeypatch.setattr(reactor, "seconds", time.time)
    return one


def within_a_minute(wakes: SteadyTime, waiting: Deferred[Any]) -> Deferred[Any]:
    """Give up after a minute, by a clock that nobody sets."""
    return waiting.addTimeout(60, wakes)


@pytest.mark.parametrize("step", [-2 * HOUR, 2 * HOUR])
@pytest_twisted.ensureDeferred
async def test_a_trigger_fires_at_its_time_although_the_wall_clock_is_set_meanwhile(wall: Wall, step: float) -> None:
    from twisted.internet import reactor

    wakes, clock, fired = SteadyTime(cast("Any", reactor)), RawClock(), Deferred[int]()
    due = clock.now_ns() + SECOND
    trigger = Trigger(clock, wakes, lambda: due, lambda _: fired.callback(clock.now_ns()))
    trigger.start()
    wakes.callLater(0.2, setattr, wall, "ahead", step)
    try:
        assert await within_a_minute(wakes, fired) >= due
        assert wall.ahead == step
    finally:
        wall.ahead = 0.0
        trigger.stop()


@pytest_twisted.ensureDeferred
async def test_an_alarm_rings_although_the_wall_clock_is_set_back_meanwhile(wall: Wall) -> None:
    from twisted.internet import reactor

    wakes, clock, rang = SteadyTime(cast("Any", reactor)), RawClock(), Deferred[int]()
    alarm = Alarm(clock.now_ns, wakes, lambda _: rang.callback(clock.now_ns()))
    due = clock.now_ns() + SECOND // 2
    alarm.set(due)
    wall.ahead = -2 * HOUR
    try:
        assert await within_a_minute(wakes, rang) >= due
    finally:
        wall.ahead = 0.0
        alarm.set(None)


def test_farm_time_goes_on_when_the_wall_clock_is_set_also_over_a_restart(wall: Wall, tmp_path: Path) -> None:
    last = 0
    clock = FarmClock(tmp_path / "farmtime", wall_ns=time.time_ns)
    began, raw = clock.now_ns(), RawClock()
    raw_began = raw.now_ns()
    for number in range(12):
        wall.ahead += (-5 if number % 2 else 3) * HOUR
        if number % 3 == 2:
            clock = FarmClock(tmp_path / "farmtime", wall_ns=time.time_ns)
        now = clock.now_ns()
        assert now > last
        assert now - began <= raw.now_ns() - raw_began + SECOND
        last = now


def set_wall(path: Path, seconds: float) -> None:
    """What a daemon whose plan names ``path`` finds its wall clock set by."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(repr(seconds))
    unfinished.replace(path)


def pending(farm: MortalFarm, nodes: list[Mortal], seconds: int) -> tuple[str, int, int]:
    """A version that all nodes have staged, and that is due in so many seconds: its name, its cycle and its time."""
    version = farm.publish(content(2), LATER)
    all_have_staged(nodes, version)
    accepted = farm.again(version, f"in:{seconds * SECOND}")
    return version, accepted.cycle, accepted.activates_at


@pytest.mark.parametrize("step", [-2 * HOUR, 2 * HOUR])
def test_all_wall_clocks_of_a_farm_are_set_while_a_flip_is_pending(
    farm: MortalFarm, forked: ForkedDaemons, tmp_path: Path, step: float
) -> None:
    walls = [tmp_path / "wall-data", tmp_path / "wall-nodes"]
    nodes = []
    for name in ("web-1", "web-2"):
        nodes.append(farm.mortal(name))
        nodes[-1].daemon.kill()
        nodes[-1].daemon.plan["wall"] = str(walls[1])
        nodes[-1].daemon.start()
    all_serve(nodes, farm.publish(content(1)))
    two, cycle, activates_at = pending(farm, nodes, 4)
    for path in walls:
        set_wall(path, step)
    all_serve(nodes, two, "ready")
    for flip in farm.flips(cycle, "web-1", "web-2").values():
        assert flip["activated_at_ns"] + flip["error_bound_ns"] >= activates_at
    # The data server's wall clock was really set, as it says itself; its farm time does not know.
    accepted = farm.again(two, LATER)
    assert abs(accepted.utc_ns / 1e9 - (time.time() + HOUR + step)) < 600
    assert abs(accepted.activates_at - activates_at - HOUR * 1e9) < 600 * SECOND


@pytest.mark.skipif(not timens.work_here(), reason="wants time namespaces: Linux 5.6, and the right to make them")
def test_machines_whose_raw_clocks_differ_by_days_flip_together_and_come_back_after_a_reboot(
    forked: ForkedDaemons, tmp_path: Path
) -> None:
    forked.next_plan = {"booted": 500_000}
    farm = MortalFarm(forked, tmp_path)
    node = farm.mortal("web-1")
    node.daemon.kill()
    node.daemon.plan["booted"] = 1_000_000
    node.daemon.start()
    one = farm.publish(content(1))
    all_serve_by_link([node], one)
    pointer = node.node.pointer()
    assert pointer is not None
    assert pointer.boot_id != boot_id()  # it runs by other clocks than this process
    two = farm.publish(content(2))
    all_serve_by_link([node], two)
    before = node.node.status()["farm_time_ns"]
    # Both machines boot again: their clocks begin anew, at less than they had shown.
    data = farm.data
    assert isinstance(data, ForkedDaemon)
    node.daemon.kill()
    data.kill()
    data.plan["booted"], node.daemon.plan["booted"] = 100_000, 200_000
    farm.restart_data()
    node.daemon.start()
    all_serve_by_link([node], two)
    sooner_or_later(later_than(node.node.status, before), "farm time goes on")
    accepted = farm.schedule(content(3))
    all_serve_by_link([node], accepted.version)
    flip = farm.flips(accepted.cycle, "web-1")["web-1"]
    assert flip["activated_at_ns"] + flip["error_bound_ns"] >= accepted.activates_at


def all_serve_by_link(nodes: list[Mortal], version: str) -> None:
    """Wait until all of them serve a version; the pointers are for readers in the nodes' own namespaces."""
    for node in nodes:
        sooner_or_later(
            lambda node=node: node.node.linked() == version == node.answers(),  # type: ignore[misc]
            f"{node.node.name} serves {version}",
        )


def later_than(status: Callable[[], dict[str, Any]], before: int) -> Callable[[], bool]:
    """Whether the farm time that a node tells lies after ``before``."""

    def question() -> bool:
        now = status()["farm_time_ns"]
        if now is None:
            return False
        assert now >= before, "farm time ran backwards"
        return True

    return question
