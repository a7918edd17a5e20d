"""Nodes and clients for a balancer's tests: real sockets, each connection in a thread that ends with the test."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from tests.daemons import Daemon, Daemons
from tests.eventually import LIMIT

LOCAL = "tcp:0:interface=127.0.0.1"
Talk = Callable[[socket.socket], None]


class ThreadedNode:
    """A node's web server: each connection is a ``talk`` of its own. Its port stays its own when it stops listening."""

    def __init__(self, name: str, talk: Talk) -> None:
        self.name = name
        self.faults: list[BaseException] = []
        self._talk = talk
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting: list[threading.Thread] = []
        self._listening: socket.socket | None = None
        # Bound and not listening: so nobody else is given the port while the node is deaf.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port = self._reserved.getsockname()[1]
        self.listen()

    @property
    def option(self) -> str:
        """The node as the balancer's --node wants it."""
        return f"{self.name}=127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Take connections (again)."""
        self._listening = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._accepting.append(self._start(self._accept, self._listening))

    def deafen(self) -> None:
        """Take no connections any more; those that there are go on."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
            listening.close()

    def close(self) -> None:
        """End everything; a fault of a talk is raised here."""
        self.deafen()
        for thread in self._accepting:
            thread.join(LIMIT)
        self._reserved.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        if self.faults:
            raise self.faults[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: Callable[[socket.socket], None], connection: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=(connection,), name=f"node {self.name}")
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.settimeout(LIMIT)
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._talk(connection)
        except BaseException as fault:
            self.faults.append(fault)


def says_its_name(name: str) -> Talk:
    """Says its name at once, then waits for the client to end."""

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            connection.sendall(name.encode())
            while connection.recv(4096):
                pass

    return talk


@contextlib.contextmanager
def named_nodes(names: str) -> Iterator[dict[str, ThreadedNode]]:
    """Nodes that say their names, one for each letter."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(ThreadedNode(name, says_its_name(name))) for name in names}


class Balancer:
    """A real balancer daemon."""

    def __init__(self, daemons: Daemons, *arguments: str) -> None:
        self.daemon: Daemon = daemons.start(
            "farmsync-lb", "--listen", LOCAL, "--http", LOCAL, "--check", "none", *arguments, name="lb", state=False
        )
        self.daemon.ready()
        self._port = int(self.daemon.addresses["listen"].rpartition(":")[2])

    def connect(self, source: str = "127.0.0.1", buffers: int = 0) -> socket.socket:
        """A client's connection from the address ``source``, with kernel buffers of that many bytes if any."""
        client = socket.socket()
        try:
            client.settimeout(LIMIT)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF) if buffers else ():
                client.setsockopt(socket.SOL_SOCKET, option, buffers)
            client.bind((source, 0))
            client.connect(("127.0.0.1", self._port))
        except BaseException:
            client.close()
            raise
        return client

    def ask(self, source: str) -> str:
        """Which node a connection from ``source`` leads to."""
        with self.connect(source) as client:
            client.shutdown(socket.SHUT_WR)
            return read_all(client).decode()

    def get(self, path: str) -> Any:
        """The answer of the HTTP side, JSON or text."""
        with urllib.request.urlopen(f"{self.daemon.addresses['http']}{path}", timeout=LIMIT) as answer:
            body = answer.read()
        return json.loads(body) if path == "/status" else body.decode()

    def connections(self) -> dict[str, int]:
        """How many connections each node has, as the balancer counts them."""
        return {node["name"]: node["connections"] for node in self.get("/status")["nodes"]}


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer ends. ConnectionResetError when it is reset."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def reset(connection: socket.socket) -> None:
    """Close so that the peer is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
