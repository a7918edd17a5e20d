"""A data server and nodes for a benchmark: real daemons, which end with the block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from bench.asking import Asker
from farmsyncd.core.messages.operating import Status
from tests.daemons import TREE, Daemon, environment

LOCAL = "tcp:0:interface=127.0.0.1"
PATIENCE = 120.0


class Farm:
    """The daemons that live in ``root``."""

    def __init__(self, root: Path, *options: str) -> None:
        self._root = root
        self._daemons: list[Daemon] = []
        self.data = self._start("data", "farmsync-data", "--listen", LOCAL, *options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for daemon in self._daemons:
            if daemon.process is not None:
                with contextlib.suppress(AssertionError):
                    daemon.kill()
        if error is not None and isinstance(error, Exception):
            for daemon in self._daemons:
                print(f"--- the end of {daemon.name}'s log\n{daemon.log[-1500:]}", file=sys.stderr)

    def _start(self, name: str, kind: str, *options: str) -> Daemon:
        directory = self._root / name
        daemon = Daemon(name, (kind, "--state", str(directory / "state"), *options), directory, {})
        self._daemons.append(daemon)
        return daemon.start()

    @property
    def port(self) -> int:
        """The data server's port."""
        return int(self.data.address("listen").rpartition(":")[2])

    def node(self, name: str, port: int, *options: str) -> Daemon:
        """Start a node that reaches the data server at ``port``; does not wait for it."""
        return self._start(name, "farmsync-node", "--data", f"tcp:127.0.0.1:{port}", "--name", name, *options)

    def publish(self, dataset: str, path: Path, *when: str) -> str:
        """Publish a directory with the command; the version."""
        done = subprocess.run(
            [sys.executable, "-m", "farmsyncd.cli", "publish", dataset, str(path), *when, "--json",
             "--data", f"tcp:127.0.0.1:{self.port}"],
            cwd=TREE, env=environment(XDG_CACHE_HOME=str(self._root / "cache")), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"farmsync publish: {done.stderr.strip()}")
        return str(json.loads(done.stdout)["version"])

    def asker(self) -> Asker:
        """A conversation with the data server."""
        return Asker(self.port)

    def status(self) -> dict[str, Any]:
        """The farm as the data server sees it."""
        with self.asker() as asker:
            found: dict[str, Any] = asker.json(Status())
        return found


def page(daemon: Daemon) -> dict[str, Any]:
    """A node's own /status."""
    with urlopen(daemon.address("http") + "/status", timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def until(done: Callable[[], object], what: str, patience: float = PATIENCE, pause: float = 0.2) -> None:
    """Wait until ``done`` is true. Raises RuntimeError when it does not become so."""
    ends = time.monotonic() + patience
    while not done():
        if time.monotonic() > ends:
            raise RuntimeError(f"expected {what} within {patience:.0f} s")
        time.sleep(pause)


def cpu_s(pid: int) -> float:
    """The CPU time of a process, all its threads, in seconds, to the nanosecond: its own CPU clock (Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


def load() -> str:
    """How busy the machine is, said with every result."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}"
