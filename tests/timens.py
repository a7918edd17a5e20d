"""Time namespaces: processes that find the machine booted at another time, and its raw clocks showing other times."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

_CLONE_NEWTIME = 0x80


def boot_earlier(seconds: int) -> None:
    """Let this process find that the machine booted so many seconds earlier; before it has any other thread.

    Raises OSError where that is not there, or not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWTIME))
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    descriptor = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(libc.setns(descriptor, _CLONE_NEWTIME))
    finally:
        os.close(descriptor)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def work_here() -> bool:
    """Whether they are there, and allowed."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    boot_earlier(9)
