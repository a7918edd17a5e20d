"""A periodic dataset from a command, which prints a tar archive or writes files. Blocks: for worker threads."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from farmsyncd.edges import program
from farmsyncd.errors import BadInput, Unavailable

_TOLD = 500


@attrs.frozen
class Command:
    """Runs ``words`` (a program and its arguments, no shell) for at most ``timeout`` seconds.

    What it prints may have ``limit_bytes``. ``stopping`` ends it early. It runs in a session of its own, and when it
    must be ended, all that it started is ended with it, the hard way after ``grace_s`` seconds.
    """

    words: tuple[str, ...]
    timeout: float
    limit_bytes: int
    stopping: threading.Event
    environment: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))
    grace_s: float = program.GRACE_S

    def run(self, out: Path, printed: Path) -> None:
        """Run it with ``$FARMSYNC_OUT`` naming the directory ``out``; what it prints goes to the file ``printed``.

        Raises BadInput when it fails, with the end of what it complained, and Unavailable when it takes too long.
        """
        with printed.open("wb") as stdout, tempfile.TemporaryFile() as stderr:
            try:
                environment = {**self.environment, "FARMSYNC_OUT": str(out)}
                process = program.start(self.words, environment, out, stdout, stderr)
            except OSError as error:
                raise BadInput(f"expected to run {self.words[0]}: {error.strerror}") from error
            grace_s = self.grace_s
            try:
                status = self._wait(process, printed)
            except BadInput:
                grace_s = 0  # it prints on, and the disk is not endless
                raise
            finally:
                program.end(process, grace_s)
            if status != 0:
                stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _TOLD))
                said = stderr.read().decode("utf-8", "replace").strip().replace("\n", " / ")
                raise BadInput(f"expected {self.words[0]} to end with status 0, and it ended with {status}: {said}")

    def _wait(self, process: subprocess.Popen[bytes], printed: Path) -> int:
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return process.wait(program.GLANCE_S)
            except subprocess.TimeoutExpired:
                pass
            if self.stopping.is_set():
                raise Unavailable("the data server is being stopped")
            if time.monotonic() > deadline:
                raise Unavailable(f"expected {self.words[0]} to end within {self.timeout:g} s; it has been ended")
            if printed.stat().st_size > self.limit_bytes:
                raise BadInput(f"expected at most {self.limit_bytes} bytes from {self.words[0]}, and it printed more")
