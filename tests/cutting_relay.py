"""A TCP relay that counts what it passes on, and cuts connections of one role after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

import attrs


@attrs.define
class Passed:
    """One connection of the role that is watched: the bytes that came from the server, all of which were passed on."""

    limit: int | None
    count: int = 0
    done: bool = False


class CuttingRelay:
    """Between nodes and the data server at ``target`` (``tcp:HOST:PORT``), for as long as the block lasts.

    Each connection whose greeting names ``role`` takes the first of ``cuts``: after so many bytes from the server both
    sides are closed in good order, so that the node has all that was counted. None, or no cuts left: never.
    """

    def __init__(self, target: str, role: str, cuts: list[int | None] | None = None) -> None:
        self._target = target
        self._role = role.encode()
        self.cuts = cuts if cuts is not None else []
        self.passed: list[Passed] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True

    @property
    def address(self) -> str:
        """Where nodes are to connect to."""
        return f"tcp:127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def total(self) -> int:
        """Bytes passed on over all connections of the role."""
        return sum(one.count for one in self.passed)

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._open = False
            sockets = [self._server, *self._sockets]
        for one in sockets:
            _shut(one)
        for thread in self._threads:
            thread.join()
        for one in sockets:
            one.close()

    def _begin(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _keep(self, one: socket.socket) -> bool:
        with self._lock:
            if self._open:
                self._sockets.append(one)
                return True
        one.close()
        return False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._keep(client):
                self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        _tcp, host, port = self._target.split(":")
        try:
            server = socket.create_connection((host, int(port)))
        except OSError:
            _shut(client)
            return
        if not self._keep(server):
            return
        with contextlib.suppress(OSError):
            greeting = client.recv(65536)
            watched = None
            if self._role in greeting.split(b"\n", 1)[0].split(b" "):
                watched = Passed(self.cuts.pop(0) if self.cuts else None)
                self.passed.append(watched)
            server.sendall(greeting)
            self._begin(self._pour, client, server)
            self._pour_counted(server, client, watched)
        _shut(server)
        _shut(client)
        if watched is not None:
            watched.done = True

    def _pour(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _pour_counted(self, source: socket.socket, target: socket.socket, watched: Passed | None) -> None:
        while True:
            most = 65536 if watched is None or watched.limit is None else min(65536, watched.limit - watched.count)
            data = source.recv(most) if most else b""
            if not data:
                return
            target.sendall(data)
            if watched is not None:
                watched.count += len(data)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
