"""A TCP relay in front of a data server that may spoil what it sends to nodes that stage."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

import attrs

_READ = 65536
_STAGER = b"HELLO 1 stager "


@attrs.define(eq=False)
class MeddlingRelay:
    """Listens on :attr:`address` and relays to ``target`` (``tcp:HOST:PORT``).

    While ``flips`` is not 0, one bit of each ``every``-th byte of what a staging node gets is turned around, and
    ``flips`` counts down; from -1 it does so for ever.
    """

    target: str
    every: int
    flips: int = 0
    flipped: int = 0
    _listener: socket.socket = attrs.Factory(lambda: socket.create_server(("127.0.0.1", 0)))
    _sockets: list[socket.socket] = attrs.Factory(list)
    _threads: list[threading.Thread] = attrs.Factory(list)
    _lock: threading.Lock = attrs.Factory(threading.Lock)
    _over: bool = False

    @property
    def address(self) -> str:
        """The endpoint for nodes."""
        return f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            sockets = [self._listener, *self._sockets]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it
        for thread in list(self._threads):
            thread.join()
        for one in sockets:
            one.close()

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            _tcp, host, port = self.target.split(":")
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                client.close()
                continue
            with self._lock:
                if self._over:
                    client.close()
                    server.close()
                    return
                self._sockets += [client, server]
            stages = threading.Event()
            self._run(self._pump, client, server, stages, True)
            self._run(self._pump, server, client, stages, False)

    def _pump(self, source: socket.socket, target: socket.socket, stages: threading.Event, asks: bool) -> None:
        passed, begun = 0, b""
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                if asks:
                    begun = (begun + data)[: len(_STAGER)]
                    if begun == _STAGER:
                        stages.set()
                elif stages.is_set():
                    data = self._spoiled(data, passed)
                passed += len(data)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _spoiled(self, data: bytes, passed: int) -> bytes:
        first = -passed % self.every if passed else self.every  # the first byte of all is left alone
        spoiled = bytearray(data)
        for at in range(first, len(data), self.every):
            with self._lock:
                if self.flips == 0:
                    break
                self.flips -= self.flips > 0
                self.flipped += 1
            spoiled[at] ^= 1
        return bytes(spoiled)
