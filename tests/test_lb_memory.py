from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock

from farmsyncd.core.affinity import Affinity
from farmsyncd.core.eligibility import Order
from farmsyncd.core.sourcebook import MAGIC, Reader, Writer
from farmsyncd.edges.config import load
from farmsyncd.errors import LocalError
from farmsyncd.lb import memory
from farmsyncd.lb.bookfile import BookFile, Reading
from farmsyncd.lb.config import BalancerConfig, NodeAddress
from farmsyncd.lb.deciding import deciding
from farmsyncd.lb.dispatcher import Dispatcher
from farmsyncd.lb.farm import Sighting
from farmsyncd.lb.memory import Clocks, Memory
from farmsyncd.lb.notes import PERIOD_S, Notes
from farmsyncd.lb.processes.alone import Alone
from farmsyncd.lb.processes.reshuffle import book
from farmsyncd.lb.relaying.binding import bind
from tests.daemons import Daemons
from tests.eventually import eventually, eventually_async
from tests.lb_farm import Balancer
from tests.lb_load import QuickNode, homes_of, port_of, quick_nodes

SECOND = 10**9
BOOT = 1_700_000_000 * SECOND
LIFE = 1800 * SECOND


def source(number: int) -> bytes:
    return number.to_bytes(4, "big")


# Real processes


def test_a_balancer_that_was_killed_or_stopped_knows_its_sources_and_orders_again(
    daemons: Daemons, tmp_path: Path
) -> None:
    from farmsyncd.cli.lb.asking import ask

    state, admin = tmp_path / "state", tmp_path / "admin"
    with quick_nodes("abcd") as nodes:
        balancer = Balancer(daemons, *nodes, "--state", str(state), "--admin", str(admin))
        homes = homes_of(port_of(balancer))
        ask(admin, "drain", "a")
        eventually(lambda: len(written(state / "sources.0")) == len(homes))
        eventually(lambda: '"a":"drain"' in (state / "farm.json").read_text())
        balancer.daemon.kill()
        balancer.daemon.start().ready()
        assert homes_of(port_of(balancer)) == homes
        late = homes_of(port_of(balancer), [f"127.0.4.{number}" for number in range(1, 9)])
        assert "a" not in late.values()
        assert balancer.daemon.stop() == -signal.SIGTERM
        balancer.daemon.start().ready()
        assert homes_of(port_of(balancer), [*homes, *late]) == {**homes, **late}
        assert ask(admin, "explain", next(iter(late)))["entry"]["why"] == memory.KEPT


def test_a_farm_that_was_known_is_served_while_the_data_server_is_away(daemons: Daemons, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with QuickNode("a") as node:
        host, port = node.option.partition("=")[2].split(":")
        nodes = [{"name": "a", "host": host, "port": int(port), "path": ""}]
        (state / "farm.json").write_text(json.dumps({"orders": {}, "nodes": nodes}))
        balancer = Balancer(daemons, "--data", "tcp:127.0.0.1:9", "--state", str(state))
        assert homes_of(port_of(balancer), ["127.0.0.1"]) == {"127.0.0.1": "a"}


# The form


def test_a_book_gives_back_what_was_written_into_it() -> None:
    writer, reader = Writer(), Reader()
    records = [(source(1), "a", BOOT), (b"?", "b", BOOT), (bytes(16), "ü" * 100, 0), (source(1), "b", BOOT + SECOND)]
    book = MAGIC + writer.frame(records[:2]) + writer.frame([]) + writer.frame(records[2:])
    assert reader.feed(book) == records
    assert reader.nodes == ["a", "b", "ü" * 100]
    assert (reader.good, reader.damaged) == (len(book), False)


def test_a_book_can_be_read_in_pieces_of_any_size() -> None:
    writer = Writer()
    records = [(source(number), f"node-{number % 3}", number * SECOND) for number in range(50)]
    book = MAGIC + b"".join(writer.frame(records[at : at + 7]) for at in range(0, 50, 7))
    for size in (1, 2, 5, 19, 100):
        reader = Reader()
        assert [one for at in range(0, len(book), size) for one in reader.feed(book[at : at + size])] == records


def test_a_book_that_was_cut_off_anywhere_counts_as_far_as_it_is_whole() -> None:
    writer = Writer()
    frames = [writer.frame([(source(number), f"n{number}", BOOT)]) for number in range(4)]
    book = MAGIC + b"".join(frames)
    ends = [len(MAGIC) + sum(map(len, frames[:count])) for count in range(5)]
    for length in range(len(book) + 1):
        reader = Reader()
        whole = [end for end in ends if end <= length]
        assert len(reader.feed(book[:length])) == max(0, len(whole) - 1)
        assert reader.good == (whole[-1] if whole else 0)
        assert not reader.damaged


def test_a_book_that_was_damaged_anywhere_counts_up_to_there_and_never_tells_what_was_not_written() -> None:
    writer = Writer()
    records = [(source(number), f"n{number}", BOOT) for number in range(4)]
    book = MAGIC + b"".join(writer.frame([one]) for one in records)
    chance = random.Random(7)
    for at in range(len(MAGIC), len(book)):
        damaged = bytearray(book)
        damaged[at] ^= chance.randrange(1, 256)
        found = Reader().feed(bytes(damaged))
        assert found == records[: len(found)]
        assert len(found) < len(records)


def test_what_is_no_book_is_refused() -> None:
    with pytest.raises(LocalError, match="expected a file that begins"):
        Reader().feed(b"something else")


# Files


def test_a_book_is_read_on_while_it_is_written_and_from_the_start_once_it_was_replaced(tmp_path: Path) -> None:
    path, writer = tmp_path / "sources.0", Writer()
    reading, book = Reading(path), BookFile(path)
    assert reading.more() == []
    book.go_on(0)
    assert reading.more() == []
    first, second = (source(1), "a", BOOT), (source(2), "b", BOOT)
    book.append(writer.frame([first]))
    assert reading.more() == [first]
    frame = writer.frame([second])
    with path.open("ab") as file:
        file.write(frame[:5])
    assert reading.more() == []
    with path.open("ab") as file:
        file.write(frame[5:])
    assert reading.more() == [second]
    assert reading.more() == []
    book.begin_draft()
    book.draft(Writer().frame([second, first]))
    assert reading.more() == []
    book.replace()
    assert reading.more() == [second, first]
    book.close()
    reading.close()
    assert [one.name for one in tmp_path.iterdir()] == ["sources.0"]


def test_a_draft_that_could_not_be_written_whole_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    book = BookFile(path)
    book.go_on(0)
    before = path.read_bytes()
    book.begin_draft()
    book.drop_draft()
    for work in (lambda: book.draft(b"more"), book.replace):
        with pytest.raises(OSError, match="given up"):
            work()
    assert path.read_bytes() == before
    book.close()


# The service


class Scene:
    """A table that is kept in a file, on clocks that the test moves."""

    def __init__(self, path: Path, up_ns: int = 5 * SECOND, wall_ns: int = BOOT) -> None:
        self.up_ns, self.wall_ns = up_ns, wall_ns
        self.affinity = Affinity(100_000, LIFE)
        clocks = Clocks(lambda: self.up_ns, lambda: self.wall_ns)
        self.memory = Memory(path, self.affinity, LIFE, clocks, _reactor)

    def use(self, number: int, node: str) -> None:
        self.affinity.release(self.affinity.hold(source(number), node, self.up_ns), self.up_ns)

    def pass_time(self, seconds: float) -> None:
        self.up_ns += int(seconds * SECOND)
        self.wall_ns += int(seconds * SECOND)

    def nodes(self) -> dict[int, str]:
        return {int.from_bytes(one, "big"): node for one, node, _ in self.affinity.dump()}


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def written(path: Path) -> dict[int, str]:
    reading = Reading(path)
    found = {int.from_bytes(one, "big"): node for one, node, _ in reading.more()}
    reading.close()
    return found


@pytest_twisted.ensureDeferred
async def test_sources_are_written_as_they_come_so_that_a_crash_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    for number in range(100):
        scene.use(number, f"n{number % 3}")
        scene.pass_time(0.01)
    scene.use(5, "elsewhere")
    await eventually_async(lambda: written(path) == scene.nodes())
    after = Scene(path, up_ns=scene.up_ns, wall_ns=scene.wall_ns)  # nothing was stopped: as after SIGKILL
    assert after.memory.load() == 100
    assert after.nodes() == scene.nodes()
    assert after.nodes()[5] == "elsewhere"
    await scene.memory.stopService()


@pytest_twisted.ensureDeferred
async def test_after_a_reboot_a_source_is_as_old_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path, up_ns=90_000 * SECOND)
    scene.memory.startService()
    scene.use(1, "a")
    scene.pass_time(1000)
    scene.use(2, "b")
    held = scene.affinity.hold(source(3), "c", scene.up_ns)
    scene.pass_time(500)
    await scene.memory.stopService()
    after = Scene(path, up_ns=SECOND, wall_ns=scene.wall_ns + 400 * SECOND)
    after.memory.load()
    assert after.nodes() == {2: "b", 3: "c"}, "the first one was used 1900 seconds ago"
    after.pass_time(1000)
    assert after.affinity.find(source(2), after.up_ns) is None
    assert after.affinity.find(source(3), after.up_ns) is not None, "it was connected until the end"
    assert held.connections == 1


@pytest_twisted.ensureDeferred
async def test_who_came_again_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    scene.use(1, "a")
    await eventually_async(lambda: written(path) == {1: "a"})
    scene.pass_time(1700)
    scene.use(1, "a")
    await scene.memory.stopService()
    after = Scene(path, scene.up_ns + 1000 * SECOND, scene.wall_ns + 1000 * SECOND)
    assert after.memory.load() == 1


@pytest_twisted.ensureDeferred
async def test_a_source_that_moves_while_the_table_is_looked_through_is_not_written_back(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    for number in (1, 2, 3):
        scene.affinity.hold(source(number), "a", scene.up_ns)  # and stays connected
    await eventually_async(lambda: written(path) == {1: "a", 2: "a", 3: "a"})
    scene.pass_time(10)
    scene.memory._touch()  # the look begins
    scene.affinity.hold(source(3), "b", scene.up_ns)
    scene.pass_time(10)

    def looked() -> bool:
        reading = Reading(path)
        records = reading.more()
        reading.close()
        return any(one == source(2) and used_ns >= scene.wall_ns - SECOND for one, _, used_ns in records)

    await eventually_async(looked)
    assert written(path) == {1: "a", 2: "a", 3: "b"}
    await scene.memory.stopService()
    assert written(path) == {1: "a", 2: "a", 3: "b"}


@pytest_twisted.ensureDeferred
async def test_a_torn_end_is_cut_off_and_the_book_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    scene.use(1, "a")
    await scene.memory.stopService()
    with path.open("ab") as file:
        file.write(b"\0\0\1")
    second = Scene(path)
    assert second.memory.load() == 1
    second.memory.startService()
    second.pass_time(1)
    second.use(2, "b")
    second.use(3, "a")
    await second.memory.stopService()
    assert written(path) == {1: "a", 2: "b", 3: "a"}


@pytest_twisted.ensureDeferred
async def test_the_successor_reads_the_rest_that_was_written_after_its_first_look(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene, after = Scene(path), Scene(path)
    scene.memory.startService()
    scene.use(1, "a")
    scene.use(2, "a")
    await eventually_async(lambda: len(written(path)) == 2)
    after.memory.load()
    assert after.nodes() == {1: "a", 2: "a"}
    scene.pass_time(1)
    scene.use(2, "b")
    scene.use(3, "c")
    await scene.memory.stopService()
    after.memory.catch_up()
    assert after.nodes() == {1: "a", 2: "b", 3: "c"}
    after.memory.startService()
    after.pass_time(1)
    after.use(4, "b")
    await after.memory.stopService()
    assert written(path) == {1: "a", 2: "b", 3: "c", 4: "b"}


@pytest_twisted.ensureDeferred
async def test_who_came_while_the_successor_got_ready_is_known_there(tmp_path: Path) -> None:
    scene = Scene(book(tmp_path, 0), time.monotonic_ns(), time.time_ns())
    scene.memory.startService()
    scene.use(1, "a")
    await eventually_async(lambda: written(book(tmp_path, 0)) == {1: "a"})
    options = {"listen": "tcp:0:interface=127.0.0.1", "node": ["a=127.0.0.1:1"], "check": "none"}
    successor = Alone(load(None, BalancerConfig, {**options, "state": str(tmp_path)}), _reactor)
    with bind("tcp:0:interface=127.0.0.1") as listening:
        await successor.prepare([listening])
        assert successor.status()["sources"] == 1
        scene.use(2, "a")
        await scene.memory.stopService()
        await successor.begin()
        assert successor.status()["sources"] == 2
        await successor.finish(0)


@pytest_twisted.ensureDeferred
async def test_a_book_does_not_grow_for_ever_and_loses_nothing_when_it_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SMALL", 100)
    monkeypatch.setattr(memory, "_SLICE", 10)
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    file = path.stat().st_ino if path.exists() else 0
    turn = 0

    def replaced() -> bool:
        nonlocal turn
        for number in range(30):
            scene.use(number, f"n{(number + turn) % 5}")
        turn += 1
        scene.pass_time(0.1)
        return turn > 20 and path.stat().st_ino != file

    await eventually_async(replaced)
    scene.use(1000, "last")
    await scene.memory.stopService()
    assert written(path) == scene.nodes()
    assert names(tmp_path) == ["sources.0"]


@pytest_twisted.ensureDeferred
async def test_a_disk_that_fails_does_not_stop_the_balancer_and_all_is_written_once_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PAUSE_TICKS", 2)
    state = tmp_path / "state"
    state.mkdir()
    scene = Scene(state / "sources.0")
    scene.memory.startService()
    scene.use(1, "a")
    await eventually_async(lambda: written(state / "sources.0") == {1: "a"})
    hidden = tmp_path / "hidden"
    full = os.open("/dev/full", os.O_WRONLY)
    book = scene.memory._book
    assert book._file is not None
    os.dup2(full, book._file)
    os.close(full)
    state.rename(hidden)
    scene.pass_time(1)
    scene.use(2, "b")
    await eventually_async(lambda: scene.memory._troubled)
    scene.pass_time(1)
    scene.use(3, "c")
    hidden.rename(state)
    await eventually_async(lambda: not scene.memory._troubled)
    assert written(state / "sources.0") == {1: "a", 2: "b", 3: "c"}
    scene.pass_time(1)
    scene.use(4, "d")
    await scene.memory.stopService()
    assert written(state / "sources.0") == {1: "a", 2: "b", 3: "c", 4: "d"}


# What is known of the farm


def noting(path: Path, *, writes: bool = True) -> tuple[Notes, Dispatcher, Clock]:
    clock = Clock()
    config = load(None, BalancerConfig, {"listen": "tcp:80", "node": ["fixed=127.0.0.1:1"]})
    dispatcher = deciding(config, clock, lambda: 0, lambda: 0.5).dispatcher
    return Notes(path, dispatcher, clock, writes=writes), dispatcher, clock


def test_orders_and_nodes_are_known_again_and_fixed_nodes_are_none_to_remember(tmp_path: Path) -> None:
    path = tmp_path / "farm.json"
    notes, dispatcher, clock = noting(path)
    notes.load()
    notes.startService()
    dispatcher.observe({"n": Sighting(NodeAddress("n", "10.0.0.1", 80))})
    dispatcher.command("n", Order.DRAIN)
    dispatcher.command("gone", Order.MAINT)
    clock.advance(PERIOD_S)
    before = path.read_bytes()
    clock.advance(PERIOD_S)
    notes.stopService()
    assert path.read_bytes() == before
    again, dispatcher, clock = noting(path, writes=False)
    again.load()
    assert {name: str(node.address) for name, node in dispatcher.farm.nodes.items()} == {
        "fixed": "127.0.0.1:1",
        "n": "10.0.0.1:80",
    }
    assert dispatcher.farm.orders == {"n": Order.DRAIN, "gone": Order.MAINT}
    path.unlink()
    again.startService()
    clock.advance(PERIOD_S)
    again.stopService()
    assert not path.exists(), "only one of several workers writes"


def test_notes_that_are_damaged_or_cannot_be_written_do_not_stop_the_balancer(tmp_path: Path) -> None:
    path = tmp_path / "farm.json"
    path.write_text("{")
    notes, dispatcher, clock = noting(path)
    notes.load()
    assert set(dispatcher.farm.nodes) == {"fixed"}
    path.unlink()
    path.mkdir()
    notes.startService()
    dispatcher.command("fixed", Order.MAINT)
    clock.advance(PERIOD_S)
    path.rmdir()
    clock.advance(PERIOD_S)
    notes.stopService()
    assert '"fixed":"maint"' in path.read_text()


@pytest_twisted.ensureDeferred
async def test_who_stays_connected_counts_as_there_also_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "sources.0"
    scene = Scene(path)
    scene.memory.startService()
    scene.affinity.hold(source(1), "a", scene.up_ns)
    scene.use(2, "b")
    await eventually_async(lambda: len(written(path)) == 2)
    scene.pass_time(1700)

    def known_after_a_crash() -> dict[int, str]:
        after = Scene(path, scene.up_ns + 1000 * SECOND, scene.wall_ns + 1000 * SECOND)
        after.memory.load()
        return after.nodes()

    await eventually_async(lambda: known_after_a_crash() == {1: "a"})
    await scene.memory.stopService()
