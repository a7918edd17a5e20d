"""A relay before a PostgreSQL server that counts round trips, and cuts connections at the worst moment."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import attrs

_READY = ord("Z")  # ReadyForQuery: the server's last message of each round trip
_LAST = ord("X")  # Terminate, the client's last one


@attrs.define(eq=False)
class PostgresRelay:
    """Listens on a port of its own for clients of the server at ``server``, a Unix socket's path.

    ``answers`` counts the round trips of all connections. ``lose_answers`` so many of the next answers are awaited from
    the server, and then the connection is cut instead of passing them on; before that, ``meanwhile`` is called.
    ``lose_requests`` so many of the next requests are not passed on, and the connection is cut.
    """

    server: Path
    answers: int = 0
    lose_answers: int = 0
    lose_requests: int = 0
    meanwhile: Callable[[], object] = attrs.field(default=lambda: None)
    _listening: socket.socket = attrs.field(init=False)
    _open: list[socket.socket] = attrs.field(init=False, factory=list)
    _threads: list[threading.Thread] = attrs.field(init=False, factory=list)

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def url(self, database_url: str) -> str:
        """The way to the same database through the relay."""
        host, port = self._listening.getsockname()
        query = f"host={host}&port={port}&sslmode=disable&gssencmode=disable"
        return urlsplit(database_url)._replace(query=query).geturl()

    def cut(self) -> None:
        """End all connections now."""
        for one in self._open:
            _cut(one)

    def _run(self, function: Callable[..., None], *values: object) -> None:
        thread = threading.Thread(target=function, args=values, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._open += [client, server]
            try:
                server.connect(str(self.server))
            except OSError:
                _cut(client)
                continue
            self._run(self._requests, client, server)
            self._run(self._answers, client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.lose_requests and data[0] != _LAST:
                    self.lose_requests -= 1
                    break
                server.sendall(data)
        _cut(client)
        _cut(server)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        started = False
        pending = b""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                kinds, rest = _split(pending + data)
                ready = kinds.count(_READY)
                if started:
                    self.answers += ready
                if started and self.lose_answers:
                    pending += data
                    if not ready:
                        continue
                    self.lose_answers -= 1
                    self.meanwhile()
                    break
                started = started or bool(ready)
                client.sendall(data)
                pending = rest
        _cut(client)
        _cut(server)


def _split(data: bytes) -> tuple[list[int], bytes]:
    """The kinds of the messages that are whole, and what is left."""
    kinds = []
    while len(data) >= 5 and len(data) >= 1 + (size := struct.unpack_from("!I", data, 1)[0]):
        kinds.append(data[0])
        data = data[1 + size :]
    return kinds, data


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
