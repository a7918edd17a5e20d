from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport

from farmsyncd.errors import ConfigError, Unavailable
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.processes.daemon import Daemon
from farmsyncd.lb.processes.handover import Given, Giving, GivingFactory, Request, Taking
from tests.daemons import Daemons
from tests.dig import ask_by
from tests.eventually import LIMIT, eventually
from tests.lb_farm import LOCAL, Balancer, ThreadedNode, says_its_name
from tests.lb_load import Load, another, holder, homes_of, port_of, quick_nodes, successors
from tests.leaks import LoggedErrors

NAME = "www.shop.example"

# Real processes


@pytest.mark.parametrize("workers", [1, 2])
def test_a_balancer_takes_over_under_load_and_no_client_is_refused_nor_sent_elsewhere(
    daemons: Daemons, tmp_path: Path, workers: int
) -> None:
    state = tmp_path / "state"
    with quick_nodes("abc") as nodes, contextlib.ExitStack() as held:
        slow = held.enter_context(ThreadedNode("slow", says_its_name("s")))
        options = [*nodes, "--node", slow.option, "--workers", str(workers), "--state", str(state)]
        balancer = Balancer(daemons, *options)
        port = port_of(balancer)
        http = balancer.daemon.addresses["http"]
        homes = homes_of(port)
        settled = [source for source, home in homes.items() if home == "s"]
        staying = held.enter_context(balancer.connect(settled[0]))
        assert staying.recv(1) == b"s"
        with Load(port, [source for source, home in homes.items() if home != "s"], homes) as load:
            load.more(300)
            new = another(daemons, "new", *options, "--take-over").ready()
            assert port_of(new) == port
            load.more(2000)
            third = another(daemons, "third", *options, "--take-over").ready()
            load.more(300)
            assert load.faults == []
        assert homes_of(port) == homes
        old = balancer.daemon
        assert old.process is not None
        assert old.process.poll() is None, "somebody is still connected there"
        staying.close()
        assert old.wait() == 0
        assert new.wait() == 0
        assert "this one finishes its connections" in old.log
        assert third.addresses["http"] == http, "checks by HTTP are not refused either"
        assert third.addresses["listen"] == f"tcp:127.0.0.1:{port}", "who leaves takes no file of his successor away"
        assert (state / "handover.sock").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_who_asks_for_the_name_or_gives_orders_never_misses_an_answer_while_another_takes_over(
    daemons: Daemons, tmp_path: Path, workers: int
) -> None:
    from farmsyncd.cli.lb.asking import ask

    state, admin = tmp_path / "state", tmp_path / "admin"
    state.mkdir()
    known = [{"name": name, "host": f"127.0.0.2{number}", "port": 80} for number, name in enumerate("ab", 1)]
    (state / "farm.json").write_text(json.dumps({"orders": {}, "nodes": known}))  # as a data server told that is away
    named = ["--data", f"tcp:127.0.0.1:{daemons.reserve()}", "--check", "none"]  # nobody serves there
    sides = ["--admin", str(admin), "--dns", LOCAL, "--dns-name", NAME]
    options = [*named, *sides, "--workers", str(workers), "--state", str(state)]
    balancer = Balancer(daemons, *options)
    port = int(balancer.daemon.addresses["dns"].rpartition(":")[2])

    def by_udp() -> None:
        assert set(ask_by(socket.SOCK_DGRAM, port, NAME).data) == {"127.0.0.21"}

    def by_tcp() -> None:
        assert set(ask_by(socket.SOCK_STREAM, port, NAME).data) == {"127.0.0.21"}

    def as_operator() -> None:
        assert {one["name"]: one["order"] for one in ask(admin, "nodes")["nodes"]} == {"a": "ready", "b": "drain"}

    ask(admin, "drain", "b")
    eventually(lambda: ask_by(socket.SOCK_DGRAM, port, NAME).data == ("127.0.0.21",))
    with Asking([by_udp, by_tcp, as_operator]) as asking:
        asking.more(20)
        new = another(daemons, "new", *options, "--take-over").ready()
        assert balancer.daemon.wait() == 0
        asking.more(20)
        assert asking.faults == []
    assert new.addresses["dns"] == f"tcp:127.0.0.1:{port}"
    assert new.stop() == -signal.SIGTERM
    assert not admin.exists()


class Asking:
    """Does each of ``questions`` again and again in a thread of its own, until the end of the block."""

    def __init__(self, questions: Sequence[Callable[[], None]]) -> None:
        self.faults: list[str] = []
        self._counts = [0] * len(questions)
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=one) for one in enumerate(questions)]

    def more(self, count: int) -> None:
        """Wait until each was answered so many times more."""
        wanted = [one + count for one in self._counts]
        eventually(lambda: self.faults or all(one >= least for one, least in zip(self._counts, wanted, strict=True)))

    def _run(self, number: int, question: Callable[[], None]) -> None:
        while not self._ends.wait(0.002):
            try:
                question()
            except Exception as fault:
                self.faults.append(f"{question.__name__}: {fault!r} after {self._counts[number]}")
                return
            self._counts[number] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(LIMIT)


def test_sighup_starts_a_successor_and_what_the_operator_said_holds_there(daemons: Daemons, tmp_path: Path) -> None:
    from farmsyncd.cli.lb.asking import ask

    state, admin = tmp_path / "state", tmp_path / "admin"
    with quick_nodes("ab") as nodes, successors(state):
        balancer = Balancer(daemons, *nodes, "--state", str(state), "--admin", str(admin))
        port = port_of(balancer)
        homes = homes_of(port)
        ask(admin, "drain", "a")
        old = balancer.daemon
        assert old.process is not None
        with Load(port, list(homes), homes) as load:
            load.more(100)
            old.process.send_signal(signal.SIGHUP)
            assert old.wait() == 0
            load.more(100)
            assert load.faults == []
        assert holder(state) not in {0, os.getpid()}
        assert {one["name"]: one["state"] for one in ask(admin, "nodes")["nodes"]} == {"a": "draining", "b": "ready"}
        told = ask(admin, "explain", next(source for source, home in homes.items() if home == "a"))
        assert told["goes_to"] == ["a"]


@pytest.mark.parametrize("workers", [1, 2])
def test_when_the_new_balancer_cannot_begin_the_old_one_goes_on(daemons: Daemons, tmp_path: Path, workers: int) -> None:
    from farmsyncd.cli.lb.asking import ask

    state, admin = tmp_path / "state", tmp_path / "admin"
    with quick_nodes("ab") as nodes, socket.create_server(("127.0.0.1", 0)) as taken:
        sides = ["--admin", str(admin), "--dns", LOCAL, "--dns-name", NAME]
        options = [*nodes, *sides, "--workers", str(workers), "--state", str(state)]
        balancer = Balancer(daemons, *options)
        port = port_of(balancer)
        homes = homes_of(port)
        with Load(port, list(homes), homes, pause_s=0.02) as load:
            load.more(100)
            early = [
                (["--queue", "some"], "queue"),
                (["--workers", "3"], f"expected --workers {workers}"),
                (["--listen", "tcp:0:interface=127.0.0.2"], "as the running balancer has"),
            ]
            # This one fails when the old one has let go already.
            late = (["--http", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"], "expected to listen on")
            for name, (more, told) in enumerate([*(early if workers == 1 else []), late]):
                new = another(daemons, f"new-{name}", *options, "--take-over", *more)
                assert new.wait() == 78
                assert told in new.log
                load.more(50)
                assert len(ask(admin, "nodes")["nodes"]) == 2
            assert load.faults == []
        eventually(lambda: holder(state) == _pid(balancer))
        assert ask_by(socket.SOCK_DGRAM, int(balancer.daemon.addresses["dns"].rpartition(":")[2]), NAME).data
        assert eventually(lambda: _status(balancer))["ready"] is True
        assert homes_of(port) == homes
        assert "this one goes on" in balancer.daemon.log
        other = tmp_path / "other"
        another(daemons, "good", *options, "--take-over", "--admin", str(other)).ready()
        assert balancer.daemon.wait() == 0
        assert homes_of(port) == homes
        assert len(ask(other, "nodes")["nodes"]) == 2
        assert not admin.exists(), "nobody listens there any more"


def _pid(balancer: Balancer) -> int:
    assert balancer.daemon.process is not None
    return balancer.daemon.process.pid


def _status(balancer: Balancer) -> dict[str, object]:
    with contextlib.suppress(OSError):
        return dict(balancer.get("/status"))
    return {}


def test_a_second_balancer_with_the_same_state_is_told_how_to_take_over_and_the_first_needs_nobody_to_take_over_from(
    daemons: Daemons, tmp_path: Path
) -> None:
    options = ["--state", str(tmp_path / "state")]
    with quick_nodes("a") as nodes:
        first = Balancer(daemons, *nodes, *options, "--take-over")
        second = another(daemons, "second", *nodes, *options)
        assert second.wait() == 78
        assert "--take-over" in second.log
        assert homes_of(port_of(first), ["127.0.0.1"]) == {"127.0.0.1": "a"}


class NotingService(Service):
    """Notes that it stops."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name = name
        self._told = told

    def stopService(self) -> None:  # noqa: N802 - IService
        super().stopService()
        self._told.append(self._name)


class NotingCrew:
    """Notes what it is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def __getattr__(self, verb: str) -> Callable[..., Deferred[None]]:
        def note(*_: object) -> Deferred[None]:
            self._told.append(verb)
            return succeed(None)

        return note


def test_orders_are_taken_no_more_before_all_is_written_down_and_the_name_is_answered_until_the_other_runs() -> None:
    told: list[str] = []
    crew: Any = NotingCrew(told)
    config = BalancerConfig(listen=LOCAL, data="tcp:127.0.0.1:1")
    sides, steady = [NotingService("admin", told)], [NotingService("dns", told)]
    gone = told.append
    daemon = Daemon(config, crew, sides, steady, {}, MemoryReactorClock(), lambda _: None, lambda _: gone("gone"))
    daemon.startService()
    assert told == ["prepare", "begin"]
    given = daemon.offer(Request(LOCAL, 1, {"admin": "elsewhere"}))
    assert (len(given.listening), given.sides) == (1, {})
    told.clear()
    daemon.pause()
    assert told == ["admin", "pause"]
    daemon.resume()
    assert told == ["admin", "pause", "resume"]
    daemon.pause()
    told.clear()
    daemon.leave()
    assert told == ["dns", "finish", "gone"]
    assert given.listening[0].fileno() == -1


# What the two say to each other


class Old:
    """A balancer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.pausing: Deferred[None] = succeed(None)
        self.refuses = False

    def offer(self, request: Request) -> Given:
        if self.refuses:
            raise ConfigError(f"not {request.listen}")
        return Given([])

    def pause(self) -> Deferred[None]:
        self.told.append("pause")
        return self.pausing

    def resume(self) -> None:
        self.told.append("resume")

    def leave(self) -> None:
        self.told.append("leave")


ASKED = b'{"listen":"tcp:80","workers":1}\n'


def conversation(old: Old) -> tuple[Giving, StringTransport]:
    giving = GivingFactory(old).buildProtocol(None)
    assert giving is not None
    transport = StringTransport()
    giving.makeConnection(transport)
    return giving, transport


def hang_up(giving: Giving) -> None:
    giving.connectionLost()
    giving.connected = 0


def test_the_old_one_leaves_only_when_the_new_one_runs() -> None:
    old = Old()
    giving, transport = conversation(old)
    giving.dataReceived(ASKED)
    assert (transport.value(), old.told) == (b"{}\n", [])
    giving.dataReceived(b"ready\n")
    assert (transport.value(), old.told) == (b"{}\nyours\n", ["pause"])
    giving.dataReceived(b"running\n")
    assert old.told == ["pause", "leave"]
    hang_up(giving)
    assert old.told == ["pause", "leave"]


@pytest.mark.parametrize(("said", "then"), [(ASKED, []), (ASKED + b"ready\n", ["pause", "resume"])])
def test_when_the_new_one_hangs_up_the_old_one_goes_on(said: bytes, then: list[str]) -> None:
    old = Old()
    giving, _ = conversation(old)
    giving.dataReceived(said)
    hang_up(giving)
    assert old.told == then


def test_a_new_one_that_dies_while_the_old_one_lets_go_is_noticed_after_that() -> None:
    old = Old()
    old.pausing = Deferred()
    giving, _ = conversation(old)
    giving.dataReceived(ASKED + b"ready\n")
    hang_up(giving)
    assert old.told == ["pause"]
    old.pausing.callback(None)
    assert old.told == ["pause", "resume"]


def test_an_old_one_that_cannot_let_go_goes_on(logged_errors: LoggedErrors) -> None:
    old = Old()
    old.pausing = fail(RuntimeError("no"))
    giving, transport = conversation(old)
    giving.dataReceived(ASKED + b"ready\n")
    assert transport.disconnecting
    assert old.told == ["pause", "resume"]
    logged_errors.take(RuntimeError)


@pytest.mark.parametrize("said", [b"what\n", b"{}\n", b'{"listen":1,"workers":1}\n', ASKED])
def test_who_cannot_take_over_is_told_why(said: bytes) -> None:
    old = Old()
    old.refuses = True
    giving, transport = conversation(old)
    giving.dataReceived(said)
    assert json.loads(transport.value())["error"]
    assert transport.disconnecting
    assert old.told == []


def test_one_at_a_time_takes_over() -> None:
    factory = GivingFactory(Old())
    first = factory.buildProtocol(None)
    assert first is not None
    first.makeConnection(StringTransport())
    assert factory.buildProtocol(None) is None
    hang_up(first)
    assert factory.buildProtocol(None) is not None


@pytest.mark.parametrize(
    ("answers", "error", "told"),
    [
        (b"", Unavailable, "hung up"),
        (b"{\n", Unavailable, "hung up"),
        (b'{"sockets":2}\n*', Unavailable, "hung up"),
        (b'{"error":"not now"}\n', ConfigError, "not now"),
    ],
)
def test_a_new_one_that_is_given_nothing_says_so(answers: bytes, error: type[Exception], told: str) -> None:
    here, there = socket.socketpair()
    with here:
        here.sendall(answers)
        here.shutdown(socket.SHUT_WR)
        with pytest.raises(error, match=told):
            Taking(there).ask(Request("tcp:80", 2))
        assert there.fileno() == -1


def test_when_the_old_one_dies_the_new_one_has_all_it_needs(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.send_fds(here, [b'{"sockets":1}\n*'], [listening.fileno()])
        taking = Taking(there)
        passed = taking.ask(Request("tcp:80", 1))
        assert [one.getsockname() for one in passed.all] == [listening.getsockname()]
        here.close()
        assert taking.switch() is False
        taking.done()
        for one in passed.all:
            one.close()
    assert Taking.connect(tmp_path / "nobody") is None
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        assert Taking.connect(tmp_path / "deaf") is None
