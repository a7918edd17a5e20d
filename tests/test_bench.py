"""What the benchmarks measure with: their statistics, their relay, their watcher, their trees."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import goals, peers, sessions, trees
from bench.__main__ import BENCHMARKS, main
from bench.asking import FarmTime, narrow
from bench.flip import Switch, spread
from bench.goals import Goal, at_least, at_most, median, percentile
from bench.helper import Helper
from bench.relay import MOST, Line
from bench.rsyncd import wire_bytes
from bench.staging import Figure, Figures
from bench.watcher import Watch
from farmsyncd.core.cutting import MAX_CHUNK
from tests.eventually import LIMIT


def test_percentiles_are_values_that_occurred() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, percent) for percent in (1, 20, 21, 50, 99, 100)] == [1, 1, 2, 3, 5, 5]
    assert percentile(range(20), 99) == 19
    assert percentile(range(200), 99) == 197


def test_a_median_lies_in_the_middle() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    for function in (median, lambda values: percentile(values, 50)):
        with pytest.raises(ValueError, match="at least one"):
            function([])


def test_goals_say_what_was_found_and_whether_it_is_enough() -> None:
    assert at_most("spread", 0.8, 1.0, "ms").met
    assert not at_most("spread", 1.2, 1.0, "ms").met
    assert at_least("ratio", 20, 20).met
    assert str(at_least("ratio", 19.5, 20)) == "ratio: 19.5; the goal is at least 20: MISSED"
    assert goals.ratio(1.0, 0.0) == float("inf")


def test_a_missing_peer_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "_PLACES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(peers.PeerMissing, match="apt-get install redis-server"):
        peers.find("redis-server")


def test_benchmarks_are_run_by_name_and_one_that_breaks_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> list[Goal]:
        raise RuntimeError

    assert {"flip", "staging", "nodes", "reader", "clock"} <= set(BENCHMARKS)
    assert main(["fast"], {"slow": broken}) == 64
    assert main([], {"broken": broken, "fine": lambda: [at_most("figure", 1, 2)]}) == 1
    assert main(["fine"], {"broken": broken, "fine": lambda: [at_most("figure", 3, 2)]}) == 0
    said = capsys.readouterr()
    assert "found fast" in said.err
    assert said.out.splitlines()[-1] == "fine: figure: 3; the goal is at most 2: MISSED"


def test_each_answer_narrows_what_is_known_of_farm_time() -> None:
    known = narrow(None, 100, 1150, 200)
    assert known == FarmTime(950, 1050)
    known = narrow(known, 300, 1310, 320)
    assert known == FarmTime(990, 1010)
    assert (known.machine_ns(5000), known.doubt_ns) == (4000, 10)


def test_a_switch_is_outside_of_a_bound_only_when_that_is_certain() -> None:
    assert Switch("web1", 0, before=95, after=99).outside_ns(due=100, bound=1) == 0
    assert Switch("web1", 0, before=90, after=95).outside_ns(due=100, bound=1) == 4
    assert Switch("web1", 0, before=105, after=120).outside_ns(due=100, bound=1) == 4
    assert Switch("web1", 0, before=0, after=999).outside_ns(due=100, bound=1) == 0
    assert spread({0: 10, 1: 4, 2: 7}) == 6


def test_the_cpu_of_each_node_more_leaves_out_what_all_share() -> None:
    figures = Figures()
    for nodes, cpu in ((1, 1.5), (4, 3.0)):
        figures.add("ours", "update", nodes, Figure(1.0, 1.0, cpu))
    assert figures.cpu_per_node("ours", "update") == 0.5


def test_rsync_says_its_bytes_in_two_lines() -> None:
    assert wire_bytes("x\nTotal bytes sent: 1,234\nTotal bytes received: 540,000,001\n") == 540_001_235
    with pytest.raises(ValueError, match="sent and received"):
        wire_bytes("rsync: error")


SMALL = trees.Shape(files=40, least=200, most=2_000, large=4 * MAX_CHUNK, changed=3, inserted=100, per_folder=10)


def test_trees_are_the_same_each_time_and_differ_in_what_they_say(tmp_path: Path) -> None:
    total = trees.first(tmp_path / "old", SMALL)
    assert trees.first(tmp_path / "same", SMALL) == total
    grown = trees.second(tmp_path / "old", tmp_path / "new", SMALL)
    assert grown == total + SMALL.inserted
    old, same, new = (_contents(tmp_path / name) for name in ("old", "same", "new"))
    assert old == same
    assert len(old) == SMALL.files + 1
    assert len({path for path in old if old[path] != new[path]}) == SMALL.changed + 1
    assert sum(map(len, new.values())) == grown
    trees.empty(tmp_path / "same")
    assert set(_contents(tmp_path / "same").values()) == {b""}


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class FakeLoop:
    """Time that stands, and one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: object) -> FakeLoop:
        self.calls.append((when, call))
        return self

    def cancel(self) -> None:
        self.calls.pop()

    def advance(self, now: float) -> None:
        self.now = now
        while self.calls and self.calls[0][0] <= now:
            _, call = self.calls[0]
            call()  # type: ignore[operator]


class FakeTransport:
    """Takes everything, and says what it was told."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_eof(self) -> None:
        self.written.append(b"EOF")

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def test_a_delayed_line_delivers_in_order_after_its_delay_and_holds_only_so_much() -> None:
    loop, near, far = FakeLoop(), FakeTransport(), FakeTransport()
    line = Line(loop, 0.040)  # type: ignore[arg-type]
    line.source = near  # type: ignore[assignment]
    line.put(b"before the far end is there")
    line.open(far)  # type: ignore[arg-type]
    loop.advance(0.010)
    line.put(b"later")
    loop.advance(0.039)
    assert far.written == []
    loop.advance(0.040)
    assert far.written == [b"before the far end is there"]
    line.put(bytes(MOST + 1))
    line.put(None)
    assert not near.reading
    loop.advance(0.060)
    assert far.written[1:] == [b"later"]
    loop.advance(0.080)
    assert [len(data) for data in far.written[2:]] == [MOST + 1, 3]
    assert near.reading


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A server for one connection, which sends back what comes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.close()
            thread.join(LIMIT)


def test_a_relay_process_passes_everything_on_and_not_before_its_time() -> None:
    with echo() as port, Helper("relay", [[port, 0.05]]) as relay:
        (relayed,) = relay.hear()
        with socket.create_connection(("127.0.0.1", relayed), LIMIT) as connection:
            sent = os.urandom(100_000)
            began = time.monotonic()
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            came = b"".join(iter(lambda: connection.recv(65536), b""))
            took = time.monotonic() - began
    assert came == sent
    assert took > 2 * 0.0499


def test_the_watcher_sees_the_link_renamed_and_nothing_else(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    watch = Watch([str(place) for place in places])
    try:
        for place, name in ((places[1], "active"), (places[0], "record"), (places[0], "active")):
            (place / "coming").symlink_to("versions/x")
            (place / "coming").rename(place / name)
        seen: list[int] = []
        while len(seen) < 2:
            stamp, data = watch.read()
            assert stamp > 0
            seen.extend(watch.events(data))
    finally:
        watch.close()
    assert seen == [1, 0]


def test_a_helper_that_ends_or_says_nothing_is_an_error() -> None:
    with Helper("switching", "/nonexistent") as helper:
        helper.tell([0, True])
        with pytest.raises(RuntimeError, match="ended with status 1"):
            helper.hear()
    with Helper("relay", []) as helper:
        assert helper.hear() == []
        with pytest.raises(RuntimeError, match="said nothing"):
            helper.hear(0.01)


def test_what_is_measured_takes_turns_and_each_way_has_its_figure() -> None:
    calls: list[str] = []
    us = sessions.turns([(lambda: calls.append("ours"), 2), (lambda: calls.append("theirs"), 1)], min)
    assert calls[:6] == ["ours", "ours", "theirs"] * 2
    assert len(us) == 2
    assert all(one > 0 for one in us)


def test_a_shoppers_state_is_about_a_kibibyte() -> None:
    assert 800 < len(json.dumps(sessions.a_state())) < 1300


def test_the_memory_of_cached_sessions_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    (goal,) = sessions.memory(lambda _line: None, tmp_path / "sessions.sqlite", 400)
    assert "bytes" in goal.found
    assert float(goal.found.split()[0]) > 1024
