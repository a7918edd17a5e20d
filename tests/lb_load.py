"""A load for a balancer that never stops: clients that connect again and again, and nodes that tell their names."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.daemons import Daemon, Daemons
from tests.eventually import LIMIT, eventually
from tests.lb_farm import LOCAL, Balancer, read_all

SOURCES = [f"127.0.1.{number}" for number in range(1, 25)]


class QuickNode:
    """A node that says its name and ends, to one client after the other. It costs next to nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._thread = threading.Thread(target=self._serve, name=f"node {name}")
        self._thread.start()

    @property
    def option(self) -> str:
        return f"{self.name}=127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(LIMIT)
        self._listening.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, contextlib.suppress(ConnectionError):
                client.sendall(self.name.encode())


@contextlib.contextmanager
def quick_nodes(names: str) -> Iterator[list[str]]:
    """Nodes, one for each letter; gives the balancer's options for them."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(QuickNode(name)) for name in names]
        yield ["--check", "none", *[word for node in nodes for word in ("--node", node.option)]]


class Load:
    """Clients at ``port`` from all ``sources``, each in its turn, until the end of the block.

    Each of the four threads waits for ``pause_s`` after each client, to leave the machine to what is tested.

    A fault is a client that was refused or reset, that got no name, or whose source was at another node before.
    """

    def __init__(
        self, port: int, sources: Sequence[str] = SOURCES, homes: Mapping[str, str] | None = None, pause_s: float = 0.0
    ) -> None:
        self.faults: list[str] = []
        self.homes: dict[str, str] = dict(homes or {})
        self.count = 0
        self._port = port
        self._pause_s = pause_s
        self._ends = threading.Event()
        parts = [sources[part::4] for part in range(4)]
        self._threads = [threading.Thread(target=self._run, args=(part,), name="load") for part in parts if part]

    def more(self, count: int) -> None:
        """Wait until so many more clients have been served."""
        wanted = self.count + count
        eventually(lambda: self.count >= wanted or self.faults, what=f"{count} more clients are served")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(LIMIT)

    def _run(self, sources: Sequence[str]) -> None:
        while not self._ends.is_set():
            for source in sources:
                try:
                    home = ask(self._port, source)
                except OSError as error:
                    self.faults.append(f"{source}: {error!r} after {self.count} clients")
                    return
                if not home or self.homes.setdefault(source, home) != home:
                    self.faults.append(f"{source}: {home!r}, and it was at {self.homes.get(source)}")
                self.count += 1
                if self._pause_s:
                    self._ends.wait(self._pause_s)


def ask(port: int, source: str) -> str:
    """Which node a connection from ``source`` leads to."""
    with socket.socket() as client:
        client.settimeout(LIMIT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        client.shutdown(socket.SHUT_WR)
        return read_all(client).decode()


def homes_of(port: int, sources: Sequence[str] = SOURCES) -> dict[str, str]:
    """Where each source is."""
    return {source: ask(port, source) for source in sources}


def port_of(balancer: Balancer | Daemon) -> int:
    daemon = balancer.daemon if isinstance(balancer, Balancer) else balancer
    return int(daemon.address("listen").rpartition(":")[2])


def another(daemons: Daemons, name: str, *arguments: str) -> Daemon:
    """One more balancer process, which listens where the others do; does not wait for it."""
    return daemons.start("farmsync-lb", "--listen", LOCAL, "--http", LOCAL, *arguments, name=name, state=False)


def holder(state: Path) -> int:
    """The process that has the state directory; 0 when there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((state / "lock").read_text().split("process ")[1].split(")")[0])
        os.kill(pid, 0)
        return pid
    return 0


@contextlib.contextmanager
def successors(state: Path) -> Iterator[None]:
    """Ends whoever has the state directory in the end, although the test has not started it itself."""
    try:
        yield
    finally:
        while pid := holder(state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: holder(state) != pid)  # type: ignore[misc]
