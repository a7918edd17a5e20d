"""A whole farm of real daemons: a data server and nodes with wrong clocks, for tests from end to end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from farmsyncd.core.pointer import Pointer
from farmsyncd.edges.cache.pointerfile import PointerReader
from tests.daemons import TREE, Daemon, Daemons, environment
from tests.eventually import eventually
from tests.trees import plant

SHOP = "shop"
MTIME_NS = 1_700_000_000 * 10**9


@attrs.frozen
class Answer:
    """What a node's HTTP side answered."""

    code: int
    version: str | None
    body: bytes


@attrs.frozen
class FarmNode:
    """One node that runs, or ran."""

    name: str
    daemon: Daemon

    @property
    def cache(self) -> Path:
        """The shop's directory on the node."""
        return self.daemon.state / SHOP

    def linked(self) -> str | None:
        """The version that the ``active`` link names."""
        try:
            return (self.cache / "active").readlink().name
        except FileNotFoundError:
            return None

    def pointer(self) -> Pointer | None:
        """What readers on this machine are told."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return PointerReader(self.cache / "pointer").read()
        return None

    def get(self, path: str) -> Answer:
        """Ask the node's HTTP side."""
        try:
            with urllib.request.urlopen(self.daemon.address("http") + path, timeout=30) as response:
                return Answer(response.status, response.headers["X-Farmsync-Version"], response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers["X-Farmsync-Version"], error.read())

    def status(self) -> dict[str, Any]:
        """The node's /status."""
        found: dict[str, Any] = json.loads(self.get("/status").body)
        return found

    def shop(self) -> dict[str, Any]:
        """What /status says of the shop; its state is ``none`` while the node does not follow it."""
        found: dict[str, Any] = self.status()["datasets"].get(SHOP, {"state": "none"})
        return found

    def serves(self, version: str, *, state: str | None = None) -> bool:
        """Whether the link and the HTTP side serve ``version``, in ``state`` if one is given."""
        shop = self.shop()
        active = shop.get("active")
        return (
            active is not None
            and active["version"] == version
            and self.linked() == version
            and state in (None, shop["state"])
        )


class Farm:
    """The data server and the nodes of one test, which all end with it."""

    def __init__(self, daemons: Daemons, directory: Path) -> None:
        self._daemons = daemons
        self._directory = directory
        self.nodes: list[FarmNode] = []
        listen = f"tcp:{daemons.reserve()}:interface=127.0.0.1"
        self.data = daemons.start("farmsync-data", "--listen", listen, "--now-lead", "500ms", name="data")
        self.address = self.data.address("listen")

    def restart_data(self) -> None:
        """Start the data server again, on the port that it had."""
        self.data.start().ready()

    def node(self, name: str, *arguments: str, skew: str = "0", http: bool = True) -> FarmNode:
        """Start a node; does not wait until it serves anything."""
        web = ("--http", "tcp:0:interface=127.0.0.1") if http else ()
        daemon = self._daemons.start(
            "farmsync-node", "--data", self.address, "--name", name, f"--skew={skew}", *web, *arguments, name=name
        )
        if http:
            daemon.ready()
        node = FarmNode(name, daemon)
        self.nodes.append(node)
        return node

    def site(self, files: Mapping[str, bytes]) -> Path:
        """A directory with these files and no others; equal files make equal versions."""
        number = len(list(self._directory.glob("site-*")))
        site = plant(self._directory / f"site-{number}", files)
        for path in site.rglob("*"):
            os.utime(path, ns=(MTIME_NS, MTIME_NS))
        return site

    def run(self, *arguments: str) -> str:
        """Run the ``farmsync`` command; what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "farmsyncd.cli", *arguments, "--data", self.address],
            cwd=TREE,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def publish(self, files: Mapping[str, bytes], *when: str) -> str:
        """Publish files as the shop's next version, at once unless ``when`` says otherwise; the version."""
        said: dict[str, Any] = json.loads(
            self.run("publish", SHOP, str(self.site(files)), *(when or ("--now",)), "--json")
        )
        return str(said["version"])

    def stage(self, files: Mapping[str, bytes]) -> str:
        """Have all nodes stage files as a version that is not due for long, and wait for it; the version."""
        version = self.publish(files, "--in", "3600")
        for node in self.nodes:
            eventually(
                lambda node=node: node.shop()["state"] == "staged" and version in node.shop()["versions"],  # type: ignore[misc]
                what=f"{node.name} has staged {version}",
            )
        return version

    def report(self) -> dict[str, Any]:
        """The newest flip's report."""
        found: dict[str, Any] = json.loads(self.run("report", SHOP, "--json"))
        return found

    def whole_report(self, version: str) -> dict[str, Any]:
        """The report of the flip to ``version``, the newest, once every node is in it."""
        found: list[dict[str, Any]] = []

        def whole() -> bool:
            found.append(self.report())
            return found[-1]["version"] == version and not found[-1]["missing"]

        eventually(whole, what="all nodes have reported their flip")
        return found[-1]

    def settled(self, version: str) -> None:
        """Wait until all nodes serve ``version``."""
        for node in self.nodes:
            eventually(lambda node=node: node.serves(version), what=f"{node.name} serves {version}")  # type: ignore[misc]
