"""A real Redis for publish/subscribe: started, told, and ended with the block."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from bench.peers import find, free_port

PATIENCE = 30.0


class Redis:
    """A redis-server that keeps nothing on disk."""

    def __init__(self, root: Path, clients: int = 100) -> None:
        self.port = free_port()
        root.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [find("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", str(root), "--maxclients", str(clients)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                if time.monotonic() > ends or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def publish(self, channel: str, word: str) -> None:
        """Send a word to all subscribers."""
        self._socket.sendall(f"PUBLISH {channel} {word}\r\n".encode())
        self._socket.recv(4096)
