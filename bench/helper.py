"""Processes that measure: ``python -m bench.NAME``, told and heard in lines of JSON over their pipes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from tests.daemons import TREE, environment

PATIENCE = 60.0


class Helper:
    """One such process, which ends with the block. ``settings`` is its one argument, as JSON."""

    def __init__(self, name: str, settings: object) -> None:
        self._name = name
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.{name}", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TREE,
            env=environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def tell(self, what: object) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self, patience: float = PATIENCE) -> Any:
        """The next line. Raises RuntimeError when the process ends, or says nothing for so long."""
        assert self._process.stdout is not None
        ends = time.monotonic() + patience
        while b"\n" not in self._rest:
            if not select.select([self._process.stdout], [], [], max(0.0, ends - time.monotonic()))[0]:
                raise RuntimeError(f"bench.{self._name} said nothing for {patience:.0f} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError(f"bench.{self._name} ended with status {self._process.wait()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


def settings() -> Any:
    """In such a process: what it was started with."""
    return json.loads(sys.argv[1])


def say(what: object) -> None:
    """In such a process: send a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def orders() -> Iterator[Any]:
    """In such a process: the lines that come, until the other side is gone."""
    for line in sys.stdin:
        yield json.loads(line)
