"""A real rsync daemon, and clients that copy from it until their copy is durable."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs
import psutil

from bench.peers import find, free_port

PATIENCE = 30.0
_STATS = re.compile(r"^Total bytes (?:sent|received): ([\d,.]+)$", re.MULTILINE)


@attrs.frozen
class Copied:
    """One or more copies at once: seconds until the last one was synced, and what each had sent and received."""

    seconds: float
    wire_bytes: Sequence[int]


class RsyncDaemon:
    """Serves the directories of ``modules`` by name."""

    def __init__(self, root: Path, modules: Mapping[str, Path]) -> None:
        self._rsync = find("rsync")
        self._port = free_port()
        root.mkdir(parents=True, exist_ok=True)
        lines = ["use chroot = false", "reverse lookup = false", "read only = true", "address = 127.0.0.1"]
        lines += ["uid = 0", "gid = 0"] if os.geteuid() == 0 else []
        for name, path in modules.items():
            lines += [f"[{name}]", f"path = {path}"]
        config = root / "rsyncd.conf"
        config.write_text("\n".join(lines) + "\n")
        self._process = subprocess.Popen(
            [self._rsync, "--daemon", "--no-detach", f"--config={config}", f"--port={self._port}",
             f"--log-file={root / 'log'}"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except OSError:
                if time.monotonic() > ends or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in psutil.Process(self._process.pid).children(recursive=True):
            child.kill()
        self._process.terminate()
        self._process.wait()

    def cpu_s(self) -> float:
        """The CPU time of the daemon and of all that it started, once those have ended; in seconds, to 10 ms."""
        daemon = psutil.Process(self._process.pid)
        ends = time.monotonic() + PATIENCE
        while daemon.children() and time.monotonic() < ends:
            time.sleep(0.05)
        times = daemon.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def copy(self, module: str, targets: Sequence[Path], base: str | None = None) -> Copied:
        """Copy to all ``targets`` at once, sharing with their sibling ``base`` what did not change."""
        for target in targets:
            target.mkdir(parents=True)
        link = [] if base is None else [f"--link-dest=../{base}"]
        script = 'target=$1; shift; "$@" && sync -f "$target"'
        began = time.monotonic()
        running = [
            subprocess.Popen(
                ["sh", "-c", script, "sh", str(target),
                 self._rsync, "-a", "--stats", *link, f"rsync://127.0.0.1:{self._port}/{module}/", f"{target}/"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )
            for target in targets
        ]  # fmt: skip
        said = [process.communicate()[0] for process in running]
        seconds = time.monotonic() - began
        for process in running:
            if process.returncode:
                raise RuntimeError(f"rsync ended with status {process.returncode}")
        return Copied(seconds, [wire_bytes(text) for text in said])


def wire_bytes(stats: str) -> int:
    """What ``rsync --stats`` says that it sent and received."""
    found = [int(re.sub(r"[,.]", "", number)) for number in _STATS.findall(stats)]
    if len(found) != 2:
        raise ValueError(f"expected the bytes sent and received in rsync's statistics, found {stats[-300:]!r}")
    return sum(found)
