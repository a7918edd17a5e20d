"""The demo's processes: a data server, nodes with wrong clocks, and a balancer, all on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from urllib.request import urlopen

import attrs

from farmsyncd.cli.lb.asking import ask

_TWISTD = (sys.executable, "-c", "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()")
_PATIENCE = 60.0  # seconds for a daemon to come up, on a busy machine
_GRACE = 10.0  # seconds for a daemon to leave


@attrs.frozen
class Member:
    """A node of the demo: its name, and by how much its clock is wrong (seconds, parts per million)."""

    name: str
    skew: float
    ppm: int

    def shown(self) -> str:
        """The wrongness for people: ``+1 h, +200 ppm``."""
        amount = abs(self.skew)
        size = f"{amount / 3600:g} h" if amount >= 3600 else f"{amount / 60:g} min" if amount >= 60 else f"{amount:g} s"
        return f"{'-' if self.skew < 0 else '+'}{size}, {self.ppm:+d} ppm"


MEMBERS = (
    Member("web1", 3600, 200),
    Member("web2", -2700, -150),
    Member("web3", 42.5, 80),
    Member("web4", -0.7, -200),
    Member("web5", 660, 20),
)


class FarmFailedError(Exception):
    """A daemon of the demo did not come up; the text holds the end of its log."""


class Farm:
    """Starts the daemons in ``root`` and ends them all when the block is left.

    ``wsgi`` names an application that the nodes serve beside the data, with sessions in one file, ``sessions``.
    """

    def __init__(self, root: Path, wsgi: str | None = None) -> None:
        self.sessions = f"sqlite:///{quote(str(root / 'sessions.db'))}"
        self._root = root
        self._admin = root / "admin"
        self._application = () if wsgi is None else ("--wsgi", wsgi, "--sessions", self.sessions)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.data = ""
        self.status_url = ""
        self.shop_url = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        at = "tcp:0:interface=127.0.0.1"
        addresses = self._daemon("data", "--state", str(self._root / "data"), "--listen", at, "--http", at)
        self.data, self.status_url = addresses["listen"], addresses["http"] + "/status"
        for member in MEMBERS:
            port = _free_port()
            self._daemon(
                "node", "--state", str(self._root / member.name), "--data", self.data, "--name", member.name,
                f"--skew={member.skew},{member.ppm}", "--http", f"tcp:{port}:interface=127.0.0.1",
                "--serve", f"127.0.0.1:{port}", *self._application, name=member.name, wait=False,
            )  # fmt: skip
        for member in MEMBERS:
            self._wait_for(member.name)
        balancer = self._daemon("lb", "--listen", at, "--data", self.data, "--admin", str(self._admin))
        self.shop_url = "http://" + balancer["listen"].removeprefix("tcp:")

    def _daemon(self, kind: str, *options: str, name: str | None = None, wait: bool = True) -> dict[str, str]:
        name = name or kind
        (self._root / "logs").mkdir(exist_ok=True)
        with (self._root / "logs" / name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*_TWISTD, "-n", "--pidfile=", f"farmsync-{kind}", *options,
                 "--addresses", str(self._root / f"{name}.json")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._root,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )  # fmt: skip
        return self._wait_for(name) if wait else {}

    def _wait_for(self, name: str) -> dict[str, str]:
        path = self._root / f"{name}.json"
        deadline = time.monotonic() + _PATIENCE
        while not path.exists():
            gone = any(process.poll() is not None for process in self._running.values())
            if gone or time.monotonic() > deadline:
                log = (self._root / "logs" / name).read_text(errors="replace")[-2000:]
                raise FarmFailedError(f"{name} did not come up; its log ends with:\n{log}")
            time.sleep(0.05)
        addresses: dict[str, str] = json.loads(path.read_text())
        return addresses

    def kill(self, name: str) -> None:
        """End a daemon as a crash would: nothing is said, nothing is saved."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def status(self) -> dict[str, Any]:
        """The data server's view of the farm: the JSON of ``farmsync status --json``."""
        with urlopen(self.status_url, timeout=10) as answer:
            status: dict[str, Any] = json.load(answer)
        return status

    def places(self) -> dict[str, str]:
        """At which node each shopper's address sticks, as ``farmsync lb sources`` tells it."""
        return {one["source"]: one["node"] for one in ask(self._admin, "sources", "100")["sources"]}

    def farmsync(self, *arguments: str) -> str:
        """Run the ``farmsync`` command against this farm; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "farmsyncd.cli", *arguments],
            env={**os.environ, "FARMSYNC_DATA": self.data, "PYTHONPATH": str(Path(__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise FarmFailedError(f"farmsync {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _stop(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
