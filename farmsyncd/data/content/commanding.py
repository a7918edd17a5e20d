"""A periodic dataset from a command, which prints a tar archive or writes files. Blocks: for worker threads."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from farmsyncd.errors import BadInput, Unavailable

_GLANCE = 0.05
_TOLD = 500


@attrs.frozen
class Command:
    """Runs ``words`` (a program and its arguments, no shell) for at most ``timeout`` seconds.

    What it prints may have ``limit_bytes``. ``stopping`` ends it early. It runs in a session of its own, and when it
    must be ended, all that it started is ended with it.
    """

    words: tuple[str, ...]
    timeout: float
    limit_bytes: int
    stopping: threading.Event
    environment: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))

    def run(self, out: Path, printed: Path) -> None:
        """Run it with ``$FARMSYNC_OUT`` naming the directory ``out``; what it prints goes to the file ``printed``.

        Raises BadInput when it fails, with the end of what it complained, and Unavailable when it takes too long.
        """
        with printed.open("wb") as stdout, tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    self.words,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env={**self.environment, "FARMSYNC_OUT": str(out)},
                    cwd=out,
                    start_new_session=True,
                )
            except OSError as error:
                raise BadInput(f"expected to run {self.words[0]}: {error.strerror}") from error
            try:
                status = self._wait(process, printed)
            finally:
                _end(process)
            if status != 0:
                stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _TOLD))
                said = stderr.read().decode("utf-8", "replace").strip().replace("\n", " / ")
                raise BadInput(f"expected {self.words[0]} to end with status 0, and it ended with {status}: {said}")

    def _wait(self, process: subprocess.Popen[bytes], printed: Path) -> int:
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return process.wait(_GLANCE)
            except subprocess.TimeoutExpired:
                pass
            if self.stopping.is_set():
                raise Unavailable("the data server is being stopped")
            if time.monotonic() > deadline:
                raise Unavailable(f"expected {self.words[0]} to end within {self.timeout:g} s; it has been ended")
            if printed.stat().st_size > self.limit_bytes:
                raise BadInput(f"expected at most {self.limit_bytes} bytes from {self.words[0]}, and it printed more")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command if it still runs, with all that it started in its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
