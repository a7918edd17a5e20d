"""For tests of relaying: a front in a process of its own, and a node that serves many with one thread."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.daemons import TREE, environment
from tests.eventually import LIMIT, eventually
from tests.lb_farm import ThreadedNode

Node = tuple[str, str, int]
"""Name, host or path, port."""


def node_of(node: ThreadedNode) -> Node:
    """A threaded node, for a front."""
    name, _, address = node.option.partition("=")
    host, _, port = address.rpartition(":")
    return name, host, int(port)


def exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes."""
    parts, lacking = [], size
    while lacking:
        part = connection.recv(min(lacking, 1 << 16))
        assert part, f"the end, {lacking} bytes too soon"
        parts.append(part)
        lacking -= len(part)
    return b"".join(parts)


class RelayProcess:
    """A front before ``nodes``; see :mod:`tests.relaying_front` for what else may be ``given``."""

    def __init__(self, *nodes: Node, **given: Any) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.relaying_front", json.dumps({"nodes": nodes, **given})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=TREE,
            env=environment(),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        named = json.loads(line)
        self.address: Any = named if isinstance(named, str) else tuple(named)
        self.at_rest = self.sockets()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        print(self.log)
        self._log.close()

    @property
    def log(self) -> str:
        """What the process has logged."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def connect(self, buffers: int = 0) -> socket.socket:
        """A client, with kernel buffers of so many bytes if any."""
        family = socket.AF_UNIX
        if not isinstance(self.address, str):
            family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        client = socket.socket(family)
        try:
            client.settimeout(LIMIT)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF) if buffers else ():
                client.setsockopt(socket.SOL_SOCKET, option, buffers)
            client.connect(self.address)
        except BaseException:
            client.close()
            raise
        return client

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def sockets(self) -> int:
        """How many it has open."""
        found = 0
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += str(descriptor.readlink()).startswith("socket:")
        return found

    def resident(self) -> int:
        """The bytes of memory that it has to itself."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) * 1024

    def rests(self) -> None:
        """Wait until no connection is left."""
        eventually(lambda: self.sockets() <= self.at_rest)
        assert self.process.poll() is None
        assert "lies in the balancer" not in self.log


class EchoNode:
    """Sends back what comes, and ends when its client does: any number of connections, one thread."""

    def __init__(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> None:
        self._listener = socket.socket(family)
        self._listener.bind(address)
        self._listener.listen(4096)
        self._listener.setblocking(False)
        name = self._listener.getsockname()
        self.node: Node = ("echo", name, 0) if isinstance(name, str) else ("echo", *name[:2])
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="echo node")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"!")
        self._thread.join(LIMIT)
        for one in (self._wake, self._woken, self._listener):
            one.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    if one is self._woken:
                        self._close_all(selector)
                        return
                    if one is self._listener:
                        with contextlib.suppress(OSError):
                            while True:
                                taken = self._listener.accept()[0]
                                taken.settimeout(LIMIT)
                                selector.register(taken, selectors.EVENT_READ)
                    else:
                        self._echo(selector, one)

    @staticmethod
    def _echo(selector: selectors.BaseSelector, one: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = one.recv(65536)
            one.sendall(data)
        if not data:
            selector.unregister(one)
            one.close()

    def _close_all(self, selector: selectors.BaseSelector) -> None:
        for key in list(selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and key.fileobj not in (self._listener, self._woken):
                key.fileobj.close()
