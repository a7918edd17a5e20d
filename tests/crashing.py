"""Makes a daemon die at a chosen step: installed in its process before it starts, it counts what it does to its disk.

A *step* is a call that changes what the next start will find: a rename, a link, a file made or removed, a sync, a
commit, a record in the pointer file. Armed with a number, the process ends by SIGKILL just before the step of that
number. All other steps are carried out, and written down, so that a test knows what it has interrupted.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import attrs

from farmsyncd.edges.cache.pointerfile import PointerFile
from farmsyncd.edges.content import durable
from farmsyncd.edges.timing.farmclock import FarmClock
from tests.timens import boot_earlier

_OS_CALLS = (
    *("rename", "replace", "link", "symlink", "unlink", "mkdir", "rmdir", "chmod", "fsync", "fdatasync"),
    *("writev", "pwrite", "utime"),
)
_COUNTED_SQL = ("BEGIN", "COMMIT")


@attrs.define
class Fuse:
    """The test's side: arms and disarms the daemon whose plan is :meth:`plan`."""

    directory: Path
    _armed: int = 0

    def plan(self) -> dict[str, object]:
        """What the daemon's start is to be given."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return {"fuse": str(self.directory)}

    def arm(self, number: int) -> None:
        """Die just before the step of this number, from 1, counted from here on; 0 counts only."""
        self._armed += 1
        self._write(f"{self._armed} {number}")

    def disarm(self) -> None:
        """Count no more."""
        self._write("")

    def steps(self) -> list[str]:
        """What was done since it was armed: ``call name``, in order. The one that it died before is the last."""
        path = self.directory / f"steps-{self._armed}"
        return path.read_text().splitlines() if path.exists() else []

    def _write(self, text: str) -> None:
        unfinished = self.directory / "armed.new"
        unfinished.write_text(text)
        unfinished.replace(self.directory / "armed")


class _Burning:
    """The daemon's side."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._token = ""
        self._count = 0

    def step(self, call: str, name: object) -> None:
        """Count one; may not return."""
        with self._lock:
            try:
                token, _, number = (self._directory / "armed").read_text().partition(" ")
            except FileNotFoundError:
                return
            if not token:
                return
            if token != self._token:
                self._token, self._count = token, 0
            self._count += 1
            with (self._directory / f"steps-{token}").open("ab", buffering=0) as file:
                file.write(f"{call} {_last_part(name)}\n".encode(errors="replace"))
            if self._count == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)


def _last_part(name: object) -> str:
    if isinstance(name, int):
        try:
            name = Path(f"/proc/self/fd/{name}").readlink()
        except OSError:
            return str(name)
    return os.fsdecode(name).rstrip("/").rpartition("/")[2] if isinstance(name, (str, bytes, os.PathLike)) else "?"


def install(plan: dict[str, Any]) -> None:
    """Do to this process what ``plan`` says.

    ``fuse``: where a :class:`Fuse` may arm it. ``wall``: the file that says how its wall clock is set. ``booted``: how
    many seconds earlier it finds the machine booted.
    """
    if "fuse" in plan:
        _count_steps(_Burning(Path(plan["fuse"])))
    if "booted" in plan:
        boot_earlier(plan["booted"])
    if "wall" in plan:
        _set_wall(Path(plan["wall"]))


def _count_steps(burning: _Burning) -> None:
    def counted(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            # Of a rename or a link the second path says more: it is what comes to be.
            burning.step(call, args[1] if call in {"rename", "replace", "link", "symlink"} else args[0])
            return function(*args, **kwargs)

        return wrapper

    opened = os.open

    def counted_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            burning.step("create", path)
        return opened(path, flags, *args, **kwargs)

    os.open = counted_open
    for call in _OS_CALLS:
        setattr(os, call, counted(call, getattr(os, call)))
    durable.sync_file_system = counted("syncfs", durable.sync_file_system)
    PointerFile.write = counted("pointer", PointerFile.write)  # type: ignore[method-assign]

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith(_COUNTED_SQL):
                burning.step("sql", sql.partition(" ")[0])
            return super().execute(sql, *args)

    cast("Any", sqlite3).connect = functools.partial(sqlite3.connect, factory=Connection)


def _set_wall(path: Path) -> None:
    """The wall clock shows what the file says, in seconds, beside the real one: read anew at each look."""
    real, real_ns = time.time, time.time_ns

    def wrong() -> float:
        try:
            return float(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            return 0.0

    time.time = lambda: real() + wrong()
    time.time_ns = lambda: real_ns() + round(wrong() * 1e9)
    from twisted.internet import reactor

    cast("Any", reactor).seconds = time.time
    # Defaults were bound before.
    begin = cast("Any", FarmClock.__init__)
    begin.__defaults__ = tuple(time.time_ns if one is real_ns else one for one in begin.__defaults__)
