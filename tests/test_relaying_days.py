"""Bad days of relaying: silent clients, nodes that do not answer, no descriptors, bursts; and each kind of address."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import LIMIT, eventually
from tests.lb_farm import ThreadedNode, read_all, reset, says_its_name
from tests.relay_scene import EchoNode, Node, RelayProcess, exactly, node_of
from tests.test_lb_relay import Outcomes

MS = 1_000_000


def _echoes(client: socket.socket, data: bytes = b"hello") -> None:
    client.sendall(data)
    assert exactly(client, len(data)) == data


def _asks_in_vain(relay: RelayProcess, shutdown: int | None = None) -> None:
    with relay.connect() as client:
        client.sendall(b"?")
        if shutdown is not None:
            client.shutdown(shutdown)
        assert client.recv(1) != b"", "an end, as if that were all"


@contextlib.contextmanager
def _deaf_node() -> Iterator[Node]:
    """A port where connecting neither succeeds nor fails: its queue is full, and nobody takes from it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 1.0)[1]:
                break
        yield ("deaf", *listener.getsockname())


@contextlib.contextmanager
def _closed_port() -> Iterator[Node]:
    """A port where connecting fails at once, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield ("closed", *bound.getsockname())


def test_a_client_that_says_nothing_is_reset_after_the_idle_time() -> None:
    with EchoNode() as echo, RelayProcess(echo.node, settings={"idle_ns": 500 * MS}) as relay:
        with pytest.raises(ConnectionResetError), relay.connect() as silent:
            silent.recv(1)
        relay.rests()


def test_a_node_that_accepts_and_never_answers_costs_its_client_only_the_idle_time() -> None:
    go = threading.Event()

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            read_all(connection)
        go.set()

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node), settings={"idle_ns": 500 * MS}) as relay:
        with pytest.raises(ConnectionError):
            _asks_in_vain(relay)
        assert go.wait(LIMIT)
        relay.rests()


def test_a_client_that_half_closes_gets_its_answer_late() -> None:
    asked, go = threading.Event(), threading.Event()

    def talk(connection: socket.socket) -> None:
        assert read_all(connection) == b"?"
        asked.set()
        assert go.wait(LIMIT)
        connection.sendall(b"late")

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        with relay.connect() as client:
            client.sendall(b"?")
            client.shutdown(socket.SHUT_WR)
            assert asked.wait(LIMIT)
            go.set()
            assert read_all(client) == b"late"
        relay.rests()


def test_a_client_that_half_closed_does_not_wait_for_ever() -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            read_all(connection)
        assert over.wait(LIMIT)

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node), settings={"half_closed_ns": 500 * MS}) as relay:
        try:
            with pytest.raises(ConnectionError):
                _asks_in_vain(relay, socket.SHUT_WR)
        finally:
            over.set()
        relay.rests()


def test_nodes_that_refuse_or_do_not_answer_are_left_for_the_next_and_no_byte_is_lost() -> None:
    with _deaf_node() as deaf, _closed_port() as closed, EchoNode() as echo:
        nodes = [closed, deaf, ("gone", "/nonexistent/socket", 0), closed, echo.node]
        nodes = [(f"{number}", host, port) for number, (_, host, port) in enumerate(nodes)]
        with RelayProcess(*nodes, settings={"connect_ns": 500 * MS}) as relay:
            clients = [relay.connect() for _ in range(20)]
            for number, client in enumerate(clients):
                client.sendall(b"said before any node was there %d" % number)
                client.shutdown(socket.SHUT_WR)
            for number, client in enumerate(clients):
                with client:
                    assert read_all(client) == b"said before any node was there %d" % number
            relay.rests()


def test_a_client_without_any_node_is_reset_and_the_log_says_so_once() -> None:
    with _closed_port() as closed, RelayProcess(closed) as relay:
        for _ in range(5):
            with pytest.raises(ConnectionResetError), relay.connect() as client:
                client.recv(1)
        assert relay.log.count("no node takes a client's connection") == 1
        relay.rests()


def test_a_node_that_resets_at_once_resets_its_clients_and_nobody_else() -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        if connection.recv(1) == b"r":
            reset(connection)
        else:
            connection.sendall(b"good")
            outcomes.tell(read_all(connection))

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        with relay.connect() as good:
            good.sendall(b"g")
            assert exactly(good, 4) == b"good"
            for _ in range(20):
                with relay.connect() as bad:
                    bad.sendall(b"r")
                    with pytest.raises(ConnectionResetError):
                        bad.recv(1)
            good.sendall(b"still here")
        assert outcomes.next() == b"still here"
        relay.rests()


def test_the_last_words_of_a_node_that_does_not_read_reach_the_client() -> None:
    """An error answer to an upload that the node does not want, which it resets: as far as it came, it is delivered."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"too large")

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        for _ in range(10):
            with relay.connect() as client:
                client.sendall(b"?" * 100_000)
                got = b""
                with contextlib.suppress(ConnectionResetError):
                    while part := client.recv(100):
                        got += part
                assert got in {b"", b"too large"}
        relay.rests()


def test_without_descriptors_clients_wait_and_all_are_served_in_the_end() -> None:
    with EchoNode() as echo, RelayProcess(echo.node, descriptors=64) as relay, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(relay.connect()) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(b"%03d" % number)
        eventually(lambda: "no more descriptors" in relay.log)
        lacking = {client: b"%03d" % number for number, client in enumerate(clients)}
        ends = time.monotonic() + LIMIT
        while lacking and time.monotonic() < ends:
            for client in select.select(list(lacking), [], [], 1.0)[0]:
                assert exactly(client, 3) == lacking.pop(client)
                client.close()
        assert not lacking
        with relay.connect() as one_more:
            _echoes(one_more)
        relay.rests()


def _descriptors(wanted: int) -> int:
    """Raise this process's limit as far as it goes; how many may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return min(max(soft, wanted), hard)


def test_ten_thousand_connects_in_a_burst_are_served_or_wait() -> None:
    """As many as this machine lets a process have; more than the balancer has descriptors for have to wait."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        room = _descriptors(23_000)
        count = min(10_000, (room - 1000) // 2)  # the echoing node lives in this process, too
        with EchoNode() as echo, RelayProcess(echo.node, descriptors=room) as relay:
            _burst(relay, count)
            relay.rests()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _burst(relay: RelayProcess, count: int) -> None:
    epoll = select.epoll()
    clients: dict[int, socket.socket] = {}
    for number in range(count):
        client = socket.socket()
        client.setblocking(False)
        client.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
        client.connect_ex(relay.address)
        clients[client.fileno()] = client
        epoll.register(client.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    asked: set[int] = set()
    ends = time.monotonic() + 60
    try:
        while clients and time.monotonic() < ends:
            for fd, flags in epoll.poll(1):
                client = clients[fd]
                if fd not in asked and flags & select.EPOLLOUT:
                    asked.add(fd)
                    client.send(b"%05d" % fd)
                if flags & select.EPOLLIN:
                    assert client.recv(100) == b"%05d" % fd
                    del clients[fd]
                    asked.discard(fd)
                    client.close()
        assert not clients, f"{len(clients)} of {count} have got no answer"
    finally:
        epoll.close()
        for client in clients.values():
            client.close()


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as trial:
        trial.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_on_both_sides() -> None:
    listen = "tcp6:0:interface=\\:\\:1"
    with EchoNode(socket.AF_INET6, ("::1", 0)) as echo, RelayProcess(echo.node, listen=listen) as relay:
        with relay.connect() as client:
            _echoes(client, b"over six")
        relay.rests()


def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    inside, outside = str(tmp_path / "node"), str(tmp_path / "front")
    with EchoNode(socket.AF_UNIX, inside) as echo:
        for _ in range(2):  # the second finds the first one's socket, where nobody listens
            with RelayProcess(echo.node, listen=f"unix:{outside}") as relay:
                with relay.connect() as client:
                    for size in (1, 100_000, 3):
                        sender = threading.Thread(target=client.sendall, args=(b"x" * size,))
                        sender.start()
                        assert exactly(client, size) == b"x" * size
                        sender.join(LIMIT)
                    client.shutdown(socket.SHUT_WR)
                    assert read_all(client) == b""
                relay.rests()


def test_a_nodes_name_is_looked_up() -> None:
    with ThreadedNode("a", says_its_name("a")) as node:
        name, _, port = node_of(node)
        with RelayProcess((name, "localhost", port)) as relay:
            for _ in range(3):
                with relay.connect() as client:
                    assert client.recv(1) == b"a"
