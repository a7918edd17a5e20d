"""``farmsync lb`` as its users run it: against a real balancer."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from pathlib import Path

import pytest

from farmsyncd.cli.main import run
from tests.daemons import Daemons
from tests.eventually import eventually
from tests.lb_farm import Balancer, named_nodes
from tests.shell import Shell


class Operated:
    """A balancer with nodes, and the command in this process, with FARMSYNC_LB naming its admin socket."""

    def __init__(self, daemons: Daemons, tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.admin = tmp_path / "admin.sock"
        self.balancer = Balancer(daemons, "--admin", str(self.admin), *arguments)
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The command's status, output and errors."""
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FARMSYNC_LB", str(self.admin))
            status = run(["lb", *arguments])
        told = self._capsys.readouterr()
        return status, told.out, told.err

    def ok(self, *arguments: str) -> str:
        """What a command prints that must end well."""
        status, out, err = self.run(*arguments)
        assert status == 0, err
        return out

    def fails(self, expected: int, *arguments: str) -> str:
        """What a command says that must fail with this exit status."""
        status, out, err = self.run(*arguments)
        assert (status, out) == (expected, ""), err
        assert err.startswith("farmsync: ")
        return err


Capture = pytest.CaptureFixture[str]


def test_nodes_are_drained_taken_out_and_brought_back_under_the_eyes_of_the_operator(
    daemons: Daemons, tmp_path: Path, capsys: Capture
) -> None:
    with named_nodes("ab") as nodes:
        operated = Operated(
            daemons, tmp_path, capsys, *[word for node in nodes.values() for word in ("--node", node.option)]
        )
        balancer = operated.balancer
        sources = [f"127.0.0.{number}" for number in range(10, 14)]
        clients = [balancer.connect(source) for source in sources]
        homes = {source: client.recv(1).decode() for source, client in zip(sources, clients, strict=True)}
        assert Counter(homes.values()) == {"a": 2, "b": 2}
        at_a = next(source for source, home in homes.items() if home == "a")

        typed = Shell(tmp_path, "").run("lb", "status", "--json", "--admin", str(operated.admin))
        assert (typed.returncode, json.loads(typed.stdout)["sources"]) == (0, 4)
        assert "4 remembered" in operated.ok("status")
        assert operated.ok("nodes").splitlines()[0].split() == [
            *("NODE", "ADDRESS", "STATE", "CONNECTIONS", "SOURCES", "WEIGHT", "FAILURES")
        ]
        told = operated.ok("explain", at_a)
        assert f"{at_a} goes to a: it is at a, which keeps its sources whatever its load" in told
        assert {source for source in sources if source in operated.ok("sources", "--count", "9")} == set(sources)

        assert "a is draining (the operator said so); it was ready, and has 2 connections" in operated.ok("drain", "a")
        assert balancer.ask(at_a) == "a"
        assert {balancer.ask(f"127.0.0.{number}") for number in range(20, 24)} == {"b"}

        assert "it was draining" in operated.ok("maint", "a")
        assert balancer.ask(at_a) == "b"
        told = operated.ok("explain", at_a)
        assert "it came to b from a" in told
        assert "its node was in maintenance" in told
        assert "no node is left to serve" in operated.run("maint", "b")[2]

        operated.ok("ready", "a")
        operated.ok("ready", "b")
        assert balancer.ask(at_a) == "b", "its cache at a is old by now"
        operated.fails(65, "drain", "nobody")
        operated.fails(65, "explain", "somebody")
        for client in clients:
            client.close()
        assert balancer.daemon.stop() in (0, -15)
        assert not operated.admin.exists()
        operated.fails(69, "status")


def test_connections_without_a_good_header_are_told_by_what_was_wrong(
    daemons: Daemons, tmp_path: Path, capsys: Capture
) -> None:
    operated = Operated(daemons, tmp_path, capsys, "--node", "a=127.0.0.1:1", "--accept-proxy")
    assert "refused" not in operated.ok("status")
    for said in (b"GET / HTTP/1.0\r\n\r\n", b"PROXY x\r\n", b"PROXY y\r\n"):
        with operated.balancer.connect() as client, contextlib.suppress(ConnectionResetError):
            client.sendall(said)
            assert client.recv(1) == b""
    assert "3 connections without a good PROXY header: 1 missing, 2 malformed" in operated.ok("status")


def test_without_a_node_a_client_waits_and_is_served_by_the_first_that_is_ready(
    daemons: Daemons, tmp_path: Path, capsys: Capture
) -> None:
    with named_nodes("a") as nodes:
        operated = Operated(daemons, tmp_path, capsys, "--node", nodes["a"].option, "--queue-timeout", "10m")
        operated.ok("maint", "a")
        assert "the only node is in maintenance" in operated.ok("status")
        with operated.balancer.connect() as client:
            eventually(lambda: operated.balancer.get("/status")["waiting"] == 1)
            operated.ok("ready", "a")
            assert client.recv(1) == b"a"


def test_without_a_node_a_client_is_reset_after_the_queues_timeout(
    daemons: Daemons, tmp_path: Path, capsys: Capture
) -> None:
    with named_nodes("a") as nodes:
        operated = Operated(daemons, tmp_path, capsys, "--node", nodes["a"].option, "--queue-timeout", "50ms")
        operated.ok("maint", "a")
        with operated.balancer.connect() as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        status = operated.balancer.get("/status")
        assert (status["ready"], status["timed_out_total"], status["waiting"]) == (False, 1, 0)


def test_checks_of_a_real_balancer_take_nodes_down_and_bring_them_back(daemons: Daemons) -> None:
    with named_nodes("ab") as nodes:
        options = [word for node in nodes.values() for word in ("--node", node.option)]
        balancer = Balancer(daemons, *options, "--check", "tcp", "--check-interval", "100ms", "--ramp-up", "0")

        def state(name: str) -> str:
            return next(str(node["state"]) for node in balancer.get("/status")["nodes"] if node["name"] == name)

        home = balancer.ask("127.0.0.10")
        other = "b" if home == "a" else "a"
        nodes[home].deafen()
        eventually(lambda: state(home) == "down")
        assert balancer.ask("127.0.0.10") == other
        assert f"node {home} is down: a check was refused" in balancer.daemon.log
        nodes[home].listen()
        eventually(lambda: state(home) == "ready")
        assert balancer.ask("127.0.0.10") == other
        nodes["a"].deafen()
        nodes["b"].deafen()
        eventually(lambda: state("a") == state("b") == "down")
        assert "no node is ready: all connections go to the 2 that are down" in balancer.daemon.log
        nodes[home].listen()  # whatever its checks say: it may be tried, and serves
        with balancer.connect("127.0.0.11") as client:
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == home.encode()
