from __future__ import annotations

import contextlib
import signal
import socket
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.eventually import eventually
from tests.lb_farm import LOCAL, Balancer, ThreadedNode, read_all
from tests.lb_load import holder, port_of


def echo(connection: socket.socket) -> None:
    """A node that says back what it is told, and ends when the client does."""
    try:
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)
    except ConnectionError:
        return


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True
    return False


def talk(client: socket.socket, words: bytes) -> None:
    client.sendall(words)
    got = b""
    while len(got) < len(words):
        part = client.recv(1 << 16)
        assert part
        got += part
    assert got == words


@pytest.mark.parametrize("workers", [1, 2])
def test_a_balancer_that_is_stopped_finishes_its_connections_and_is_gone(
    daemons: Daemons, tmp_path: Path, workers: int
) -> None:
    with ThreadedNode("a", echo) as node:
        balancer = Balancer(
            daemons, "--node", node.option, "--workers", str(workers), "--state", str(tmp_path / "state")
        )
        port = port_of(balancer)
        process = balancer.daemon.process
        assert process is not None
        with balancer.connect("127.0.0.2") as client, balancer.connect("127.0.0.3") as other:
            talk(client, b"before")
            talk(other, b"before")
            process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(port))
            talk(client, b"and after" * 10_000)
            talk(other, b"and after")
            assert process.poll() is None
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
            talk(other, b"still there")
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b""
        assert balancer.daemon.wait() == -signal.SIGTERM
        assert balancer.daemon.addresses == {}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", ["200ms", "1h"])
def test_who_does_not_end_is_reset_after_the_limit_or_when_it_is_said_twice(
    daemons: Daemons, workers: int, limit: str
) -> None:
    with ThreadedNode("a", echo) as node:
        balancer = Balancer(daemons, "--node", node.option, "--workers", str(workers), "--drain-limit", limit)
        port = port_of(balancer)
        process = balancer.daemon.process
        assert process is not None
        with balancer.connect() as client:
            talk(client, b"before")
            process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(port))
            if limit == "1h":
                talk(client, b"and after")
                process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert balancer.daemon.wait() == -signal.SIGTERM
        assert ("for the second time" in balancer.daemon.log) == (limit == "1h")


def test_a_balancer_that_is_stopped_while_it_starts_leaves_nobody_behind(daemons: Daemons, tmp_path: Path) -> None:
    state = tmp_path / "state"
    daemon = daemons.start(
        "farmsync-lb",
        "--listen",
        LOCAL,
        "--node",
        "a=127.0.0.1:9",
        "--workers",
        "2",
        "--state",
        str(state),
        state=False,
    )
    eventually(lambda: holder(state))
    assert daemon.stop() == -signal.SIGTERM
    eventually(lambda: processes_in(daemon.directory) == [])
    assert "Traceback" not in daemon.log


def processes_in(directory: Path) -> list[str]:
    """The processes that work in ``directory``."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if process.readlink() == directory.resolve():
                found.append(process.parent.name)
    return found


def test_who_is_finishing_shows_it(daemons: Daemons) -> None:
    with ThreadedNode("a", echo) as node:
        balancer = Balancer(daemons, "--node", node.option)
        http = balancer.daemon.addresses["http"]
        with balancer.connect() as client:
            talk(client, b"before")
            assert balancer.daemon.process is not None
            balancer.daemon.process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(port_of_http(http)) is False and balancer_clients(http) == 1)
        assert balancer.daemon.wait() == -signal.SIGTERM


def port_of_http(http: str) -> int:
    return int(http.rpartition(":")[2])


def balancer_clients(http: str) -> int:
    import json
    import urllib.request

    with urllib.request.urlopen(f"{http}/status", timeout=30) as answer:
        return int(json.load(answer)["clients"])
