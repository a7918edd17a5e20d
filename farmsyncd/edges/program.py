"""A program that a daemon runs, in a session of its own, so that all that it started can be ended with it. Blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

GRACE_S: Final = 5.0
"""What is told to end by SIGTERM has so long to do it, before it is killed."""
GLANCE_S: Final = 0.05
"""How often to look whether a program is done, or must be ended."""


def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start ``words``, a program and its arguments, in ``directory``; it has nothing to read. Raises OSError."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a program that still runs, and all of its process group: SIGTERM, and after ``grace_s`` seconds SIGKILL.

    Does nothing when the program has ended by itself: what it left behind on purpose goes on.
    """
    if process.poll() is not None:
        return
    _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _signal(process.pid, 0):
        if time.monotonic() >= deadline:
            _signal(process.pid, signal.SIGKILL)
            break
        time.sleep(GLANCE_S)
        process.poll()  # a program that has ended is one of its group until somebody asks
    process.wait()


def _signal(group: int, number: int) -> bool:
    """Send a signal to all of a process group; whether there is anybody."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's by now, as a set-user-ID program is
        return True
    return True
