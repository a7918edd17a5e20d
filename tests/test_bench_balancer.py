"""What the balancer's benchmark measures with: its clients, its accounts of CPU time and memory, its goals."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import balancer, balancers, peers, workers
from bench.balancer import BULK, IDLE, KEPT, OURS, SHORT, Figures, Size
from bench.helper import Helper
from bench.workers import Sample
from tests.eventually import LIMIT, eventually
from tests.proxies import needs_nginx

BULKY = 300_000


class Web:
    """A web server as the benchmark's clients want it, which notes who came."""

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.open = self.done = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, (host, _) = self._listening.accept()
            except OSError:
                return
            client.settimeout(LIMIT)
            self.clients.append(host)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self.open += 1
        with client, client.makefile("rb") as said, contextlib.suppress(ConnectionError):
            while first := said.readline():
                while said.readline().strip():
                    pass
                path, version = first.split()[1:]
                body = bytes(BULKY) if path == b"/bulk" else b"hello\n"
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                if version == b"HTTP/1.0":
                    break
        with self._lock:
            self.open -= 1
            self.done += 1


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    with contextlib.closing(server):
        yield server


def test_shoppers_ask_as_they_are_told_and_say_what_they_got(web: Web) -> None:
    small = len(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
    with Helper("shoppers", None) as shoppers:

        def told(**order: object) -> Any:
            shoppers.tell({"port": web.port, **order})
            answer = shoppers.hear()
            assert answer["failed"] == 0
            assert answer["seconds"] > 0
            return answer["bytes"]

        assert told(do="short", count=20, at_once=4, sources=5) == 20 * small
        assert len(web.clients) == 20
        assert len(set(web.clients)) == 5
        assert told(do="kept", count=30, at_once=3, sources=3) >= 30 * small
        eventually(lambda: web.done == 23)
        assert told(do="bulk", count=2, at_once=2, path="/bulk") > 2 * BULKY
        eventually(lambda: web.done == 25)
        assert told(do="idle", count=7, sources=2) == 7 * small
        assert web.open == 7
        assert told(do="leave") == 0
        eventually(lambda: web.done == 32)


def test_connections_that_end_badly_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            client, _ = server.accept()
            client.recv(1)
            client.close()  # with the rest unread: a reset

        thread = threading.Thread(target=reset)
        thread.start()
        with Helper("shoppers", None) as shoppers:
            shoppers.tell({"port": server.getsockname()[1], "do": "short", "count": 1, "at_once": 1})
            assert shoppers.hear()["failed"] == 1
        thread.join(LIMIT)


@contextlib.contextmanager
def grandparent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started one that has started one; it goes when its input ends."""
    waits = "import subprocess, sys; sys.stdin.read()"
    two = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
    one = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {two!r}])"
    with subprocess.Popen([sys.executable, "-c", one], stdin=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_all_processes_of_a_program_count() -> None:
    with grandparent() as process:
        pids = eventually(lambda: found if len(found := balancers.family(process.pid)) == 3 else [])
        assert pids[0] == process.pid
        program = balancers.Balancer("program")
        program.pid = process.pid
        with program:
            assert set(program.cpu_ns()) == set(pids)
            eventually(lambda: min(program.cpu_ns().values()) > 0)
            parts = eventually(lambda: found if min(found := [balancers.pss(pid) for pid in pids]) > 500_000 else [])
            assert max(parts) < program.memory() < 3 * sum(parts)
    assert balancers.kernel_memory() > 1_000_000


def test_the_goals_are_beside_those_that_were_there() -> None:
    figures = Figures()
    for what, ours, theirs in ((SHORT, 150, 100), (KEPT, 15, 10), (BULK, 0.3, 1.0), (IDLE, 1000, 3000)):
        for factor in (1, 1, 50):
            figures.add(what, OURS, ours * factor)
        figures.add(what, "haproxy", theirs)
    found = balancer.goals(figures, [OURS, "haproxy", "nginx stream"])
    assert [(goal.found, goal.met) for goal in found] == [
        ("1.5", True),
        ("1.5", False),
        ("0.3", True),
        ("0.333", True),
    ]
    assert balancer.goals(figures, [OURS]) == []


def test_the_busier_of_two_workers_sets_the_pace_and_the_supervisors_time_counts() -> None:
    said: list[str] = []
    alone = Sample(1000, {7: 100_000_000}, 0.2)
    two = Sample(1000, {1: 0, 2: 60_000_000, 3: 45_000_000}, 0.1)
    two += Sample(1000, {1: 10_000_000, 2: 50_000_000, 3: 45_000_000}, 0.2)
    assert alone.pace == pytest.approx(10_000)
    assert two.pace == pytest.approx(2000 / 0.120)
    goal = workers.compared(alone, two, said.append)
    assert (goal.found, goal.met) == ("1.67", False)
    assert "105 CPU us" in said[0]
    assert "against 100; the busier worker has 52% of it" in said[0]
    assert "6667 a second against 5000" in said[0]


def test_without_nginx_there_is_nothing_to_balance_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "_PLACES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert balancer.run(said.append, Size(bulk=1 << 20), 1) == []
    assert said == ["balancer: nginx is not installed: apt-get install nginx brings it; what needs it is left out"]


@needs_nginx
def test_a_small_run_goes_through(capsys: pytest.CaptureFixture[str]) -> None:
    size = Size(short=60, kept=100, at_once=4, sources=8, bulk=1 << 20, downloads=2, idle=50, first=2)
    said: list[str] = []
    goals = balancer.run(said.append, size, 1)
    names = [goal.what for goal in goals]
    assert names[-1].startswith("connections per second of 2 workers")
    for what in (SHORT, KEPT, BULK, IDLE):
        assert any(f"{what}: {OURS} " in line for line in said)
    assert capsys.readouterr().out == "", "the daemons' logs are none of it"
