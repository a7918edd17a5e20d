"""Farm time never steps and never runs backwards: not when the wall clock is set, not over a restart or a reboot."""

from __future__ import annotations

import json
import random
from pathlib import Path

import attrs
import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from farmsyncd.core.words import EPOCH
from farmsyncd.edges.timing.farmclock import LEASE_NS, RENEWAL, FarmClock, FarmClockKeeper, Line
from farmsyncd.errors import LocalError
from tests.leaks import LoggedErrors

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


@attrs.define
class _Machine:
    """A machine whose clocks the test sets."""

    wall: int = 1_800_000_000 * SECOND
    raw: int = 5 * SECOND
    boot: str = "one"

    def now_ns(self) -> int:
        return self.raw

    def machine_ns(self, local_ns: int) -> int:
        return local_ns

    def wall_ns(self) -> int:
        return self.wall

    def run(self, ns: int) -> None:
        self.wall += ns
        self.raw += ns

    def reboot(self, away_ns: int) -> None:
        self.wall += away_ns
        self.raw = SECOND
        self.boot += "'"

    def start(self, path: Path) -> FarmClock:
        return FarmClock(path, self, self.wall_ns, self.boot)


@pytest.fixture
def line(tmp_path: Path) -> Path:
    return tmp_path / "farmtime"


def test_farm_time_begins_with_the_wall_clock_and_runs_with_the_raw_one(line: Path) -> None:
    machine = _Machine()
    farm = machine.start(line)
    assert farm.now_ns() == machine.wall
    machine.run(7 * SECOND)
    assert farm.now_ns() == machine.wall


@pytest.mark.parametrize("by", [-HOUR, HOUR, -1, 1])
def test_setting_the_wall_clock_does_not_touch_it(line: Path, by: int) -> None:
    machine = _Machine()
    farm = machine.start(line)
    before = farm.now_ns()
    machine.wall += by
    machine.run(3)
    assert farm.now_ns() == before + 3


def test_a_restart_in_the_same_boot_goes_on_exactly_even_with_the_wall_clock_set_back(line: Path) -> None:
    machine = _Machine()
    before = machine.start(line).now_ns()
    machine.wall -= 24 * HOUR
    machine.run(90 * SECOND)
    assert machine.start(line).now_ns() == before + 90 * SECOND


def test_after_a_reboot_it_goes_on_from_the_wall_clock(line: Path) -> None:
    machine = _Machine()
    machine.start(line)
    machine.run(HOUR)
    machine.reboot(120 * SECOND)
    assert machine.start(line).now_ns() == machine.wall


def test_after_a_reboot_with_the_wall_clock_set_back_it_is_later_than_all_that_was_told(line: Path) -> None:
    machine = _Machine()
    farm = machine.start(line)
    machine.run(LEASE_NS - 1)
    told = farm.now_ns()
    machine.reboot(0)
    machine.wall -= 24 * HOUR
    assert told < machine.start(line).now_ns() <= told + LEASE_NS


def test_a_raw_clock_that_began_anew_is_noticed_even_within_what_calls_itself_the_same_boot(line: Path) -> None:
    machine = _Machine(raw=HOUR)
    told = machine.start(line).now_ns()
    machine.raw = SECOND
    machine.wall -= HOUR
    assert machine.start(line).now_ns() >= told


@pytest.mark.parametrize("seed", range(5))
def test_it_never_runs_backwards_whatever_happens_to_the_machine(line: Path, seed: int) -> None:
    chance = random.Random(seed)
    machine = _Machine()
    farm = machine.start(line)
    told = farm.now_ns()
    for _ in range(300):
        match chance.randrange(6):
            case 0:
                machine.wall += chance.randint(-HOUR, HOUR)
            case 1:
                farm = machine.start(line)
            case 2 if chance.random() < 0.3:
                machine.reboot(chance.randint(0, 60 * SECOND))
                farm = machine.start(line)
            case _:
                machine.run(chance.choice([1, SECOND, 100 * SECOND]))
        now = farm.now_ns()
        assert now >= told
        told = now


def test_each_start_has_an_epoch_of_its_own(line: Path) -> None:
    epochs = {_Machine().start(line).epoch for _ in range(20)}
    assert len(epochs) == 20
    assert all(EPOCH.decode(epoch) == epoch for epoch in epochs)


def test_a_wall_clock_time_becomes_farm_time_as_that_clock_is_set_now(line: Path) -> None:
    machine = _Machine()
    farm = machine.start(line)
    at_six = machine.wall + HOUR
    assert farm.from_utc_ns(at_six) == farm.now_ns() + HOUR
    machine.wall += 30 * SECOND  # it was slow and has been set
    assert farm.from_utc_ns(at_six) == farm.now_ns() + HOUR - 30 * SECOND
    assert farm.to_utc_ns(farm.from_utc_ns(at_six)) == at_six


def test_the_mark_is_ahead_of_all_that_is_told_even_if_nobody_keeps_it(line: Path) -> None:
    machine = _Machine()
    farm = machine.start(line)
    for _ in range(10):
        machine.run(LEASE_NS // 2 + 1)
        told = farm.now_ns()
        found = Line.read(line)
        assert found is not None
        assert found.mark_ns > told


def test_a_disk_that_takes_no_mark_does_not_stop_the_time(line: Path, logged_errors: LoggedErrors) -> None:
    machine = _Machine()
    farm = machine.start(line)
    line.with_name("farmtime.new").mkdir()
    machine.run(2 * LEASE_NS)
    assert farm.now_ns() == machine.wall
    assert farm.now_ns() == machine.wall
    assert len(logged_errors.take(LocalError)) == 1  # and not again at each reading


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"boot": "x", "raw_ns": "soon", "farm_ns": 1, "mark_ns": 2}', "null"]
)
def test_a_damaged_line_is_told_and_not_taken_for_none(line: Path, text: str) -> None:
    line.write_text(text)
    with pytest.raises(LocalError, match=r"expected a line of farm time in .*farmtime"):
        _Machine().start(line)


def test_the_keeper_puts_the_mark_ahead_and_outlives_a_full_disk(line: Path, logged_errors: LoggedErrors) -> None:
    machine, clock = _Machine(), Clock()
    farm = machine.start(line)

    def run(work: object) -> Deferred[None]:
        assert callable(work)
        return execute(work)

    keeper = FarmClockKeeper(farm, clock, run)
    keeper.startService()
    line.with_name("farmtime.new").mkdir()
    clock.advance(RENEWAL)
    assert len(logged_errors.take(LocalError)) == 1
    line.with_name("farmtime.new").rmdir()
    machine.run(HOUR)
    clock.advance(RENEWAL)
    assert json.loads(line.read_text())["mark_ns"] == machine.wall + LEASE_NS
    keeper.stopService()
    assert not clock.getDelayedCalls()
