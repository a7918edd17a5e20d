"""Peers that break the protocol of a real data server: each is told why, nobody else notices, and the log names it."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import attrs
import pytest

from farmsyncd.core.wire import Limits
from tests.daemons import Daemon, Daemons
from tests.eventually import LIMIT, eventually

GREETING = b"HELLO 1 stager web-9\n"


@attrs.frozen
class BadPeer:
    """What a bad peer says, what it must be told, and what the log says of it."""

    says: bytes
    is_told: bytes
    logged: str


BAD_PEERS = {
    "another version": BadPeer(b"HELLO 2 node web-9 something=new\n", b"the peer speaks 2", "the peer speaks 2"),
    "a line too long": BadPeer(b"A" * 100_000, b"a line of at most 4096 bytes", "a line of at most 4096 bytes"),
    "a frame too long": BadPeer(
        GREETING + b"MANIFEST +1\n99999999:" + b"x" * 100_000,
        b"a netstring of at most %d bytes, and a longer one is announced" % Limits().netstring,
        "a longer one is announced",
    ),
    "frames together too long": BadPeer(
        GREETING + b"OFFER +64\n" + b"8000000:" + b"x" * 8_000_000 + b",8388609:",
        b"and 8388609 are announced",
        "8388609 are announced",
    ),
    "too many netstrings": BadPeer(GREETING + b"OFFER +65\n", b"expected 1 to 64 netstrings", "1 to 64 netstrings"),
    "a netstring that lies": BadPeer(
        GREETING + b"MANIFEST +1\n3:abcdef," + b"x" * 50_000, b"no comma follows it", "no comma follows it"
    ),
    "an HTTP request": BadPeer(
        b"GET /status HTTP/1.1\r\nHost: data\r\nAccept: */*\r\n\r\n", b"not HTTP", "an HTTP request came"
    ),
    "a TLS client": BadPeer(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n" + b"\0" * 500, b"expected a verb", "expected a verb"
    ),
    "an unknown verb": BadPeer(GREETING + b"XYZZY\n", b"expected a verb of this protocol", "XYZZY"),
    "a server's verb": BadPeer(GREETING + b"SENT " + b"a" * 40 + b"\n", b"not for the client", "not for the client"),
    "no greeting": BadPeer(b"STATUS\n", b"expected HELLO before STATUS", "expected HELLO before STATUS"),
}


def dial(daemon: Daemon) -> socket.socket:
    _tcp, host, port = daemon.address("listen").split(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT)


def ask(peer: socket.socket, said: bytes, expected: bytes) -> None:
    """Say something and wait for an answer, among heartbeats."""
    peer.sendall(said)
    answer = b""
    while expected not in answer:
        part = peer.recv(4096)
        assert part, answer
        answer += part


def logged(data: Daemon, address: str) -> list[str]:
    """What the log says of one address."""
    return [line for line in data.log.splitlines() if f"{address}: " in line]


def rest(peer: socket.socket) -> bytes:
    """All that the data server says until it ends the connection."""
    answer = b""
    while part := peer.recv(65536):
        answer += part
    return answer


@pytest.fixture
def data(daemons: Daemons) -> Daemon:
    return daemons.start("farmsync-data", "--listen", "tcp:0:interface=127.0.0.1").ready()


def test_bad_peers_are_told_why_and_nobody_else_notices(data: Daemon) -> None:
    with dial(data) as good:
        ask(good, b"HELLO 1 probe web-1\n", b"HELLO 1 data ")
        for what, bad in BAD_PEERS.items():
            with dial(data) as peer:
                address = "{}:{}".format(*peer.getsockname())
                # One who is refused in the middle of what it says may find its connection closed before its end.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    peer.sendall(bad.says)
                assert bad.is_told in rest(peer), what
            (line,) = eventually(partial(logged, data, address), what=what)
            assert bad.logged in line
            ask(good, b"PING 5\n", b"PONG 5\n")
    assert "Traceback" not in data.log
    with dial(data) as peer:
        peer.sendall(b"TIME\nDATASETS\nSCHEDULE shop\n")
        peer.shutdown(socket.SHUT_WR)
        now, datasets, refusal = rest(peer).split(b"\n", 2)
    assert now.startswith(b"NOW ")
    assert datasets == b"DATASETS-ARE"
    assert refusal.startswith(b"NO unknown SCHEDULE +1\n")
