"""Real twistd daemons as processes of their own, which never outlive the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

from tests.eventually import LIMIT, eventually

TREE = Path(__file__).resolve().parent.parent
TWISTD = (sys.executable, "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the tree's packages and plugins in reach."""
    paths = [str(TREE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **more}


@attrs.define
class Daemon:
    """One daemon: its command, its directory, and its process while it runs.

    ``through`` is a program that becomes the daemon: it is given the daemon's command as its last arguments.
    """

    name: str
    arguments: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    through: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """The daemon's state directory."""
        return self.directory / "state"

    @property
    def log_path(self) -> Path:
        """All that the daemon's runs have printed, one after the other."""
        return self.directory / "log"

    @property
    def log(self) -> str:
        """The text of the log so far."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    @property
    def addresses_path(self) -> Path:
        """Where the daemon says on which addresses it listens."""
        return self.directory / "addresses.json"

    def start(self) -> Self:
        """Start the process, anew after it has ended; see :meth:`ready` for when it listens."""
        assert self.process is None, f"{self.name} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.addresses_path.unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.through, *TWISTD, "-n", "--pidfile=", *self.arguments, "--addresses", str(self.addresses_path)],
                cwd=self.directory,
                env=environment(**self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def ready(self, timeout: float = LIMIT) -> Self:
        """Wait until the daemon listens; AssertionError with its log when it ends instead."""
        eventually(lambda: self.addresses or self._must_run(), timeout, f"{self.name} listens")
        return self

    def _must_run(self) -> None:
        assert self.process is not None
        if (status := self.process.poll()) is not None:
            raise RuntimeError(f"{self.name} ended with status {status}; its log:\n{self.log}")

    @property
    def addresses(self) -> dict[str, str]:
        """What the daemon says that it listens on, such as ``{"listen": "tcp:127.0.0.1:40123"}``; empty before."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            found: dict[str, str] = json.loads(self.addresses_path.read_bytes())
            return found
        return {}

    def address(self, key: str) -> str:
        """One of the addresses; waits for it."""
        self.ready()
        return self.addresses[key]

    def stop(self, timeout: float = LIMIT) -> int:
        """End it in good order (SIGTERM); its exit status, which twistd makes ``-SIGTERM``."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> int:
        """End it as a crash would (SIGKILL)."""
        return self._end(signal.SIGKILL, LIMIT)

    def wait(self, timeout: float = LIMIT) -> int:
        """Wait until it has ended by itself; its exit status."""
        return self._end(None, timeout)

    def _end(self, how: signal.Signals | None, timeout: float) -> int:
        assert self.process is not None, f"{self.name} does not run"
        process, self.process = self.process, None
        try:
            if how is not None:
                process.send_signal(how)
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {timeout} s; its log:\n{self.log}") from None


class Daemons:
    """The daemons of one test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._all: list[Daemon] = []
        self._reserved: list[socket.socket] = []

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self._all)

    def start(
        self,
        tapname: str,
        *arguments: str,
        name: str = "",
        state: bool = True,
        through: tuple[str, ...] = (),
        **env: str,
    ) -> Daemon:
        """Start ``twistd -n TAPNAME ARGUMENTS``, with a state directory of its own when ``state``; does not wait."""
        name = name or f"{tapname}-{len(self._all)}"
        directory = self._directory / name
        own = ("--state", str(directory / "state")) if state else ()
        daemon = Daemon(name, (tapname, *own, *arguments), directory, env, through)
        self._all.append(daemon)
        return daemon.start()

    def reserve(self) -> int:
        """A port of the loopback for a daemon that comes and goes: nobody else is given it meanwhile."""
        bound = socket.socket()
        self._reserved.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as it is with who listens on it
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End whatever still runs, and print the logs, which pytest shows for a test that failed."""
        for daemon in self._all:
            if daemon.process is not None:
                with contextlib.suppress(AssertionError):
                    daemon.kill()
        for bound in self._reserved:
            bound.close()
        for daemon in self._all:
            print(f"--- log of {daemon.name} ({' '.join(daemon.arguments)})\n{daemon.log}")
