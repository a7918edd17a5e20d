"""Farms at awkward times: the data server away at T, started anew before it, nodes that join or sleep around it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.pointerfile import PointerReader
from farmsyncd.edges.timing.clocks import RawClock
from farmsyncd.node.record import Record
from tests.crash_farm import (
    SECOND,
    Mortal,
    MortalFarm,
    all_are_tidy,
    all_have_staged,
    all_serve,
    content,
    machine_ns,
    sooner_or_later,
)
from tests.farm import SHOP
from tests.node_bench import Bench, S
from tests.nursery import ForkedDaemons

LATER = "in:3600000000000"


@pytest.fixture
def farm(forked: ForkedDaemons, tmp_path: Path) -> MortalFarm:
    return MortalFarm(forked, tmp_path)


def staged(farm: MortalFarm, nodes: list[Mortal], mark: int) -> str:
    """Have all nodes stage a version that is not due for long."""
    version = farm.publish(content(mark), LATER)
    all_have_staged(nodes, version)
    return version


def knows(node: Mortal, cycle: int) -> bool:
    """Whether the node has written down when this cycle comes, and told its readers; or has swapped to it."""
    pointer = node.node.pointer()
    return pointer is not None and cycle in (pointer.active_cycle, pointer.next_cycle)


def all_know(nodes: list[Mortal], cycle: int) -> None:
    for node in nodes:
        sooner_or_later(lambda node=node: knows(node, cycle), f"{node.node.name} knows the time")  # type: ignore[misc]


def not_early(farm: MortalFarm, cycle: int, *names: str, dataset: str = SHOP) -> None:
    """As the nodes report it: nobody has swapped before the time, within the error bound that he gives."""
    report = farm.report_of(cycle, dataset)
    for name, flip in farm.flips(cycle, *names, dataset=dataset).items():
        assert flip["activated_at_ns"] + flip["error_bound_ns"] >= report["activates_at_ns"], name


def test_the_data_server_is_away_from_before_the_time_until_after_it(farm: MortalFarm) -> None:
    nodes = [farm.mortal("web-1", skew="3600,200"), farm.mortal("web-2", skew="-1800,-100")]
    all_serve(nodes, farm.publish(content(1)))
    two = staged(farm, nodes, 2)
    accepted = farm.again(two, "in:4000000000")
    all_know(nodes, accepted.cycle)
    farm.data.kill()
    all_serve(nodes, two)
    farm.restart_data()
    not_early(farm, accepted.cycle, "web-1", "web-2")
    # Rolled over once, by the first node that came back: two activations and three publications make five revisions.
    sooner_or_later(lambda: farm.course()["active"]["cycle"] == accepted.cycle, "it is rolled over")
    course = farm.course()
    assert (course["active"]["cycle"], course["next"], course["revision"]) == (accepted.cycle, None, 5)
    assert [one["outcome"] for one in farm.history()] == ["active", "replaced", "past"]
    assert farm.report_of()["missing"] == []


def test_a_data_server_that_starts_anew_shortly_before_the_time_keeps_it(farm: MortalFarm) -> None:
    nodes = [farm.mortal("web-1", skew="-7200,-200"), farm.mortal("web-2", skew="7200,200")]
    all_serve(nodes, farm.publish(content(1)))
    two = staged(farm, nodes, 2)
    accepted = farm.again(two, "in:5000000000")
    all_know(nodes, accepted.cycle)
    before = farm.now()
    farm.data.kill()
    farm.restart_data()
    after = farm.now()
    assert after.epoch != before.epoch
    assert after.farm_ns > before.farm_ns
    for node in nodes:
        sooner_or_later(
            lambda node=node: f"epoch {after.epoch}" in node.daemon.log,  # type: ignore[misc]
            "the node has compared its clock with the new start of the data server's",
        )
    all_serve(nodes, two, "ready")
    not_early(farm, accepted.cycle, "web-1", "web-2")
    assert farm.report_of(accepted.cycle)["activates_at_ns"] == accepted.activates_at


def test_two_datasets_with_one_activation_time(farm: MortalFarm) -> None:
    """Seen from the end: catalog, reports and links, which stay as they are from then on."""
    nodes = [farm.mortal("web-1", skew="60"), farm.mortal("web-2", skew="-60")]
    datasets = (SHOP, "prices")
    accepted = {dataset: farm.schedule(content(1), LATER, dataset) for dataset in datasets}
    for node in nodes:
        for dataset in datasets:
            sooner_or_later(
                lambda node=node, dataset=dataset: node.has_complete(dataset, accepted[dataset].version),  # type: ignore[misc]
                f"{node.node.name} has staged {dataset}",
            )
    at_ns = time.time_ns() + 5 * SECOND
    accepted = {dataset: farm.again(accepted[dataset].version, f"at:{at_ns}", dataset) for dataset in datasets}
    # The same time of the wall clock is the same farm time, but for what one clock gained on the other meanwhile.
    assert abs(accepted[SHOP].activates_at - accepted["prices"].activates_at) < SECOND
    for dataset, one in accepted.items():
        not_early(farm, one.cycle, "web-1", "web-2", dataset=dataset)
        sooner_or_later(lambda dataset=dataset: farm.course(dataset)["active"], "it is rolled over")  # type: ignore[misc]
        course = farm.course(dataset)
        assert (course["active"]["cycle"], course["next"], course["revision"]) == (one.cycle, None, 3)
        assert [cycle["outcome"] for cycle in farm.history(dataset)] == ["active", "replaced"]
        report = farm.report_of(one.cycle, dataset)
        assert (report["activates_at_ns"], report["missing"]) == (one.activates_at, [])
        for node in nodes:
            assert (node.cache.parent / dataset / "active").readlink().name == one.version
            answer = node.node.get(f"/{dataset}/index.html")
            assert (answer.version, answer.body) == (one.version, content(1)["index.html"])


def test_nodes_that_join_around_the_time_do_the_right_one_of_the_two(farm: MortalFarm) -> None:
    """They start so long before T. A daemon takes some 45 ms to connect; a busy machine shifts that, and may."""
    nodes = [farm.mortal("old")]
    one = farm.publish(content(1))
    all_serve(nodes, one)
    two = staged(farm, nodes, 2)
    accepted = farm.again(two, "in:1500000000")
    raw = RawClock()
    ahead_ns = farm.now().farm_ns - raw.now_ns()
    for before_ms in (250, 150, 95, 50, 5, -50):
        time.sleep(max(0, accepted.activates_at - ahead_ns - before_ms * 1_000_000 - raw.now_ns()) / 1e9)
        nodes.append(farm.mortal(f"joins-{before_ms}-ms-before"))
    all_serve(nodes, two, "ready")
    for node in nodes:
        record = msgspec.json.decode((node.cache / "record").read_bytes(), type=Record)
        assert record.activations in ((one, two), (two,))
        assert record.highest == accepted.cycle
    assert farm.history()[0]["outcome"] == "active"
    # What one may have begun to copy before it was overtaken by the time goes when the next version comes.
    all_serve(nodes, farm.publish(content(3)), "ready")
    all_are_tidy(nodes)


def test_joining_50_ms_before_the_time_brings_in_the_next_version_and_serves_it_from_the_time_on(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    one, two = bench.version("one"), bench.version("two")
    bench.replica.start()
    at_ns = bench.farm_ns + S // 20
    bench.plan(5, Turn(1, one.version, bench.farm_ns - 100 * S), Turn(2, two.version, at_ns))
    assert bench.stager.wanted == two.version  # the version before would be served for 50 ms, and cost as much
    bench.stager.deliver(two)
    assert (bench.linked(), bench.served()) == (None, None)
    bench.time.advance(0.05)
    assert (bench.linked(), bench.served()) == ("two", "two")


def test_joining_50_ms_after_the_time_serves_the_new_version_although_the_plan_still_calls_it_the_next(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    one, two = bench.version("one"), bench.version("two")
    bench.replica.start()
    at_ns = bench.farm_ns - S // 20
    bench.plan(5, Turn(1, one.version, bench.farm_ns - 100 * S), Turn(2, two.version, at_ns))
    assert bench.stager.wanted == two.version
    bench.stager.deliver(two)
    assert (bench.linked(), bench.served()) == ("two", "two")


def test_a_start_that_takes_until_after_the_time_does_not_take_back_what_readers_have_seen(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, two = bench.version("one"), bench.version("two")
    first, second = (Turn(1, one.version, bench.farm_ns - 100 * S), Turn(2, two.version, bench.farm_ns + 5 * S))
    bench.replica.start()
    bench.plan(1, first)
    bench.stager.deliver(one)
    bench.plan(2, first, second)
    bench.stager.deliver(two)
    bench.time.advance(4.5)
    bench.crash()
    replica = bench.replica = bench._open()  # it has looked at its disk before the time ...
    bench.time.sleep(1.0)
    told = PointerReader(bench.cache.pointer_path)

    def seen() -> str | None:
        pointer = told.read_again()
        return None if pointer is None else pointer.current(bench.time.machine_ns(bench.time.now_ns()))

    assert seen() == two.version
    bench.compared = False
    seen_at_each_writing = []
    write = bench.page.write

    def watched(pointer: Pointer) -> None:
        write(pointer)
        seen_at_each_writing.append(seen())

    bench.page.write = watched  # type: ignore[method-assign]
    replica.start()  # ... and begins to serve after it
    assert set(seen_at_each_writing) == {two.version}
    assert (bench.linked(), bench.served()) == ("two", "two")


def is_stopped(pid: int) -> bool:
    """Whether all of a process stands still."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def test_a_node_that_is_stopped_across_the_time_is_late_and_catches_up(farm: MortalFarm) -> None:
    nodes = [farm.mortal("awake"), farm.mortal("asleep")]
    awake, asleep = nodes
    one = farm.publish(content(1))
    all_serve(nodes, one)
    two = staged(farm, nodes, 2)
    accepted = farm.again(two, "in:4000000000")
    all_know(nodes, accepted.cycle)
    process = asleep.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        sooner_or_later(lambda: is_stopped(process.pid), "it is stopped")
        pointer = asleep.node.pointer()
        in_time = pointer is not None and pointer.next_version == two and not pointer.flipped(machine_ns())
        all_serve([awake], two, "ready")
        farm.flips(accepted.cycle, "awake")
        if in_time:  # else the machine was too busy for the test to be in time: it slept after its flip
            assert asleep.node.linked() == one
        # Readers do not ask the node: they compare the clock.
        sooner_or_later(lambda: asleep.pointed() == two, "its readers have flipped all the same")
        woken_ns = farm.now().farm_ns
    finally:
        process.send_signal(signal.SIGCONT)
    all_serve([asleep], two, "ready")
    flip = farm.flips(accepted.cycle, "asleep")["asleep"]
    if in_time:
        assert flip["activated_at_ns"] + flip["error_bound_ns"] >= woken_ns
    assert farm.report_of(accepted.cycle)["missing"] == []


def test_a_node_that_could_not_stage_in_time_stays_says_so_and_is_reported_late(farm: MortalFarm) -> None:
    node = farm.mortal("web-1")
    one = farm.publish(content(1))
    all_serve([node], one)
    # A file where the tree is to grow: no version can be staged, until somebody moves it out of the way.
    (node.cache / "staging").rmdir()
    (node.cache / "staging").write_text("in the way")
    two = farm.publish(content(2))
    sooner_or_later(lambda: farm.course()["phase"] in {"due", "idle"} and _is_behind(node, one), "it stays behind")
    assert node.answers() == one
    (node.cache / "staging").unlink()
    (node.cache / "staging").mkdir()
    all_serve([node], two, "ready")
    flip = farm.flips(2, "web-1")["web-1"]
    assert flip["lateness_ns"] > 0


def _is_behind(node: Mortal, version: str) -> bool:
    shop = node.shop()
    return shop["state"] in {"late", "failed"} and shop["active"]["version"] == version and bool(shop["detail"])


def test_a_periodic_dataset_goes_on_after_its_data_server_was_away_over_several_periods(
    forked: ForkedDaemons, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "n").write_text("0")
    config = tmp_path / "data.toml"
    config.write_text(
        '[data]\nnow-lead = "100ms"\nfreeze-lead = "50ms"\n'
        f'[data.dataset.shop]\ndirectory = "{source}"\nperiod = "1s"\n'
    )
    farm = MortalFarm(forked, tmp_path)
    farm.data.kill()
    farm.data.arguments += ("--config", str(config))
    farm.restart_data()
    node = farm.mortal("web-1")
    sooner_or_later((node.cache / "active" / "n").exists, "the node serves")
    farm.data.kill()
    cycle = json.loads((node.cache / "record").read_bytes())["highest"]
    (source / "n").write_text("1")
    os.utime(source / "n", (1, 1))
    time.sleep(2.5)  # periods go by
    farm.restart_data()
    sooner_or_later(lambda: (node.cache / "active" / "n").read_text() == "1", "the node serves what is new")
    cycles = farm.history()
    numbers = [one["cycle"] for one in cycles]
    assert numbers == list(range(len(cycles), 0, -1))
    assert len(cycles) > cycle
    times = [one["activates_at_ns"] for one in cycles]
    assert len(set(times)) == len(times)
    assert times == sorted(times, reverse=True)
