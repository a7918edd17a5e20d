"""I-9: a byte that one side sent is delivered in order to the other, or the connection ends in a reset."""

from __future__ import annotations

import hashlib
import queue
import random
import select
import socket
import threading

import pytest

from tests.daemons import Daemons
from tests.eventually import LIMIT, eventually
from tests.lb_farm import Balancer, Talk, ThreadedNode, read_all, reset

BODY = random.Random(9).randbytes(1 << 20) * 12
SMALL = 1 << 16


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


class Outcomes:
    """What a node's talks saw, for the test to wait for."""

    def __init__(self) -> None:
        self._queue: queue.Queue[object] = queue.Queue()

    def tell(self, outcome: object) -> None:
        self._queue.put(outcome)

    def next(self) -> object:
        return self._queue.get(timeout=LIMIT)


def test_whole_bodies_arrive_both_ways_at_once_while_halves_end_on_their_own(daemons: Daemons) -> None:
    """The node sends its body while it reads the client's, and tells the client's digest after the client's end."""

    def talk(connection: socket.socket) -> None:
        sender = threading.Thread(target=connection.sendall, args=(BODY[::-1],))
        sender.start()
        received = read_all(connection)
        sender.join(LIMIT)
        connection.sendall(_digest(received))

    with ThreadedNode("a", talk) as node:
        balancer = Balancer(daemons, "--node", node.option)
        with balancer.connect() as client:

            def send() -> None:
                client.sendall(BODY)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            answer = read_all(client)
            sender.join(LIMIT)
        assert answer[:-64] == BODY[::-1]
        assert answer[-64:] == _digest(BODY)
        eventually(lambda: balancer.get("/status")["clients"] == 0)
        assert balancer.connections() == {"a": 0}


def test_a_node_may_end_its_half_first(daemons: Daemons) -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"all I have to say")
        connection.shutdown(socket.SHUT_WR)
        outcomes.tell(_digest(read_all(connection)))

    with ThreadedNode("a", talk) as node:
        balancer = Balancer(daemons, "--node", node.option)
        with balancer.connect() as client:
            assert read_all(client) == b"all I have to say"
            client.sendall(BODY)
        assert outcomes.next() == _digest(BODY)
        eventually(lambda: balancer.connections() == {"a": 0})


def _stalled_talk(go: threading.Event, outcomes: Outcomes) -> Talk:
    def talk(connection: socket.socket) -> None:
        assert go.wait(LIMIT)
        outcomes.tell(_digest(read_all(connection)))

    return talk


def test_a_slow_reader_stops_the_sender_and_loses_nothing(daemons: Daemons) -> None:
    """The node does not read; the client sends as long as the balancer takes more, which is far from all."""
    go, outcomes = threading.Event(), Outcomes()
    enough = 96 << 20  # what the kernel's buffers on the way hold is a fraction of it
    with ThreadedNode("a", _stalled_talk(go, outcomes)) as node:
        try:
            balancer = Balancer(daemons, "--node", node.option)
            with balancer.connect(buffers=SMALL) as client:
                taken, digest = 0, hashlib.sha256()
                piece = memoryview(BODY)[: 1 << 20]
                while taken < enough and select.select([], [client], [], 1.0)[1]:
                    sent = client.send(piece[: 1 << 16])
                    digest.update(piece[:sent])
                    taken += sent
                assert taken < enough, "the balancer keeps what nobody reads"
                go.set()
                client.shutdown(socket.SHUT_WR)
                assert outcomes.next() == digest.hexdigest().encode()
                assert read_all(client) == b""
        finally:
            go.set()


def test_a_slow_client_stops_the_node_and_loses_nothing(daemons: Daemons) -> None:
    outcomes = Outcomes()
    enough = 96 << 20

    def talk(connection: socket.socket) -> None:
        connection.setblocking(False)
        taken, digest = 0, hashlib.sha256()
        while taken < enough and select.select([], [connection], [], 1.0)[1]:
            sent = connection.send(memoryview(BODY)[: 1 << 16])
            digest.update(memoryview(BODY)[:sent])
            taken += sent
        outcomes.tell(taken)
        outcomes.tell(digest.hexdigest().encode())

    with ThreadedNode("a", talk) as node:
        balancer = Balancer(daemons, "--node", node.option)
        with balancer.connect(buffers=SMALL) as client:
            taken = outcomes.next()
            digest = hashlib.sha256()
            while part := client.recv(1 << 16):
                digest.update(part)
        assert isinstance(taken, int)
        assert 0 < taken < enough, "the balancer keeps what nobody reads"
        assert outcomes.next() == digest.hexdigest().encode()


def _tells_its_end(outcomes: Outcomes) -> Talk:
    def talk(connection: socket.socket) -> None:
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
            outcomes.tell("ended")
        except ConnectionResetError:
            outcomes.tell("reset")

    return talk


def test_a_clients_reset_is_a_reset_at_the_node(daemons: Daemons) -> None:
    outcomes = Outcomes()
    with ThreadedNode("a", _tells_its_end(outcomes)) as node:
        balancer = Balancer(daemons, "--node", node.option)
        client = balancer.connect()
        client.sendall(b"half of it")
        assert client.recv(4096) == b"half of it"
        reset(client)
        assert outcomes.next() == "reset"
        with balancer.connect() as whole:
            whole.sendall(b"x")
            assert whole.recv(4096) == b"x"
        assert outcomes.next() == "ended", "an orderly end is an orderly end"
        eventually(lambda: balancer.connections() == {"a": 0})


def test_a_nodes_reset_is_a_reset_at_the_client(daemons: Daemons) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"the first half")
        connection.recv(1)
        reset(connection)

    with ThreadedNode("a", talk) as node:
        balancer = Balancer(daemons, "--node", node.option)
        with balancer.connect() as client:
            client.sendall(b"?")
            assert client.recv(14, socket.MSG_WAITALL) == b"the first half"
            client.sendall(b"!")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        eventually(lambda: balancer.connections() == {"a": 0})


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_balancer_that_ends_in_the_middle_resets_both_sides(daemons: Daemons, how: str) -> None:
    outcomes = Outcomes()
    with ThreadedNode("a", _tells_its_end(outcomes)) as node:
        balancer = Balancer(daemons, "--node", node.option, "--drain-limit", "1s")
        with balancer.connect() as client:
            client.sendall(b"half of it")
            assert client.recv(10, socket.MSG_WAITALL) == b"half of it"
            getattr(balancer.daemon, how)()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert outcomes.next() == "reset"


def test_a_half_ended_connection_that_stays_silent_is_reset(daemons: Daemons) -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        assert read_all(connection) == b"?"
        assert over.wait(LIMIT)

    with ThreadedNode("a", talk) as node:
        balancer = Balancer(daemons, "--node", node.option, "--half-closed", "1s")
        try:
            with balancer.connect() as client:
                client.sendall(b"?")
                client.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        finally:
            over.set()
        eventually(lambda: balancer.connections() == {"a": 0})
