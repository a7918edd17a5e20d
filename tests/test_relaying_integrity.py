"""I-9: whole and equal, or a reset; whoever is slow, breaks, resets or is killed, and however much there is."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
from collections.abc import Callable

import pytest

from tests.eventually import LIMIT
from tests.lb_farm import ThreadedNode, read_all, reset
from tests.relay_scene import RelayProcess, exactly, node_of
from tests.test_lb_relay import Outcomes

BODY = random.Random(9).randbytes((5 << 20) + 3)
SIZES = [0, 1, 1447, 16_383, 16_384, 65_535, 65_536, 65_537, 300_000, 1 << 20, len(BODY)]
SMALL = 1 << 14


def _body(size: int) -> memoryview:
    return memoryview(BODY)[len(BODY) - size :]


def _answers_with_what_is_asked(connection: socket.socket) -> None:
    """Eight bytes say how much to send; it is sent while the rest of the question comes; then the rest's digest."""
    asked = struct.unpack("!Q", exactly(connection, 8))
    sender = threading.Thread(target=connection.sendall, args=(_body(*asked),))
    sender.start()
    digest = hashlib.sha256(read_all(connection)).digest()
    sender.join(LIMIT)
    connection.sendall(digest)


def _whole(client: socket.socket, up: int, down: int, receive: Callable[[socket.socket], bytes]) -> None:
    def send() -> None:
        client.sendall(struct.pack("!Q", down))
        client.sendall(_body(up))
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    answer = receive(client)
    sender.join(LIMIT)
    assert len(answer) == down + 32
    assert answer[:down] == _body(down)
    assert answer[down:] == hashlib.sha256(_body(up)).digest()


@pytest.mark.parametrize("given", [{}, {"settings": {"pipes": 0}}, {"settings": {"pipe_size": 65536, "pipes": 1}}])
def test_bodies_of_all_sizes_arrive_whole_both_ways_at_once(given: dict[str, object]) -> None:
    with ThreadedNode("a", _answers_with_what_is_asked) as node, RelayProcess(node_of(node), **given) as relay:
        for up, down in [*zip(SIZES, reversed(SIZES), strict=True), (len(BODY), len(BODY)), (0, 0)]:
            with relay.connect() as client:
                _whole(client, up, down, read_all)
        relay.rests()


def test_a_slow_reader_with_small_buffers_gets_all_of_it() -> None:
    def slowly(client: socket.socket) -> bytes:
        parts = [client.recv(1) for _ in range(100)]
        while part := client.recv(1 + len(parts) * 7 % 9000):
            parts.append(part)
        return b"".join(parts)

    with ThreadedNode("a", _answers_with_what_is_asked) as node, RelayProcess(node_of(node)) as relay:
        for down in (300_000, 1 << 20):
            with relay.connect(SMALL) as client:
                _whole(client, 1 << 20, down, slowly)
        relay.rests()


def test_what_comes_in_pieces_with_pauses_is_neither_held_back_nor_changed() -> None:
    """Each piece is echoed before the next is sent: nothing may wait for more to come."""

    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    with ThreadedNode("a", echo) as node, RelayProcess(node_of(node)) as relay:
        with relay.connect() as client:
            for size in [1, 10, 100_000, 1, 70_000, 70_000, 70_000, 70_000, 70_000, 3, 200_000, 5, 1 << 20, 1]:
                sender = threading.Thread(target=client.sendall, args=(_body(size),))
                sender.start()
                got = exactly(client, size)
                sender.join(LIMIT)
                assert got == _body(size)
        relay.rests()


def test_urgent_data_does_not_stop_or_cut_what_follows() -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        outcomes.tell(read_all(connection))

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        for before, after in [(0, 10), (10, 0), (10, 10), (1 << 20, 1 << 20), (len(BODY), 1 << 18)]:
            with relay.connect() as client:
                client.sendall(_body(before))
                client.send(b"!", socket.MSG_OOB)
                client.sendall(_body(after))
                client.shutdown(socket.SHUT_WR)
                got = outcomes.next()
                assert isinstance(got, bytes)
                assert got.replace(b"!", b"") == (bytes(_body(before)) + _body(after)).replace(b"!", b"")
                assert read_all(client) == b""
        relay.rests()


@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000, len(BODY)])
def test_an_answer_that_breaks_off_never_ends_as_if_it_were_whole(size: int) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(_body(size))
        reset(connection)

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        for buffers in (0, SMALL):
            with relay.connect(buffers) as client:
                client.sendall(b"?")
                with pytest.raises(ConnectionResetError):
                    read_all(client)
        relay.rests()


def test_an_upload_that_breaks_off_never_ends_as_if_it_were_whole() -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        try:
            outcomes.tell(len(read_all(connection)))
        except ConnectionResetError:
            outcomes.tell("reset")

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        for size in SIZES:
            client = relay.connect()
            client.sendall(_body(size))
            reset(client)
            assert outcomes.next() == "reset"
        relay.rests()


def test_a_client_that_resets_in_the_middle_of_a_bulk_answer_resets_the_node() -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        try:
            while True:
                connection.sendall(BODY)
        except ConnectionError:
            outcomes.tell("broken")

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        for taken in (1, 1 << 20, 20 << 20):
            client = relay.connect()
            got = 0
            while got < taken:
                got += len(client.recv(1 << 16))
            reset(client)
            assert outcomes.next() == "broken"
        stuck = relay.connect(SMALL)  # one that does not read at all, so that everything is full before it resets
        assert len(stuck.recv(1)) == 1
        reset(stuck)
        assert outcomes.next() == "broken"
        relay.rests()


@pytest.mark.parametrize("taken", [1, 1 << 20])
def test_a_balancer_that_is_killed_resets_both_in_the_middle_of_bulk_and_between_halves(taken: int) -> None:
    outcomes = Outcomes()

    def talk(connection: socket.socket) -> None:
        try:
            assert exactly(connection, 5) == b"whole"
            while True:
                connection.sendall(BODY)
        except ConnectionError:
            outcomes.tell("broken")

    with ThreadedNode("a", talk) as node, RelayProcess(node_of(node)) as relay:
        with relay.connect() as whole, relay.connect() as half:
            for client in (whole, half):
                client.sendall(b"whole")
            half.shutdown(socket.SHUT_WR)
            for client in (whole, half):
                got = 0
                while got < taken:
                    got += len(client.recv(1 << 16))
            relay.kill()
            for client in (whole, half):
                with pytest.raises(ConnectionResetError):
                    read_all(client)
        assert [outcomes.next(), outcomes.next()] == ["broken", "broken"]


def test_what_nobody_reads_is_not_kept_by_the_balancer() -> None:
    """Forty nodes' answers without an end and clients that do not read: what waits is bounded, and small."""
    go, outcomes = threading.Event(), Outcomes()

    def talk(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(BODY)
        outcomes.tell("full")
        assert go.wait(LIMIT)

    with ThreadedNode("a", talk) as node, contextlib.ExitStack() as stack:
        stack.callback(go.set)
        relay = stack.enter_context(RelayProcess(node_of(node)))
        before = relay.resident()
        clients = [stack.enter_context(relay.connect(SMALL)) for _ in range(40)]
        assert [outcomes.next() for _ in clients] == ["full"] * len(clients)
        assert relay.resident() - before < 40 * (1 << 17) + (8 << 20)
