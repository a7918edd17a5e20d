"""One daemon per state directory: a lock that the kernel gives back however its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import attrs

from farmsyncd.errors import ConfigError


class InUse(ConfigError):
    """Another process has the state directory."""


@attrs.define
class StateLock:
    """A state directory that is this process's own until :meth:`release`, or until the process ends."""

    path: Path
    _descriptor: int | None

    def release(self) -> None:
        """Give the directory back; a second call does nothing."""
        if self._descriptor is not None:
            # Unlocked by name: a child that is just being started may hold the descriptor for another moment.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def lock(state: Path, what: str) -> StateLock:
    """Take the directory ``state`` for ``what`` (the program's name), making the directory if it is not there.

    Raises InUse when another process has it, and ConfigError when it cannot be made or written.
    """
    path = state / "lock"
    try:
        state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"expected a state directory that can be written at {state}: {error.strerror}; "
            "make it writable for this user, or name another with --state"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise InUse(
            f"expected the state directory {state} to be free, and {holder} is using it; "
            "stop that one first, or name another directory with --state"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            f"expected a file system with locks under {state}: {error.strerror}; name another directory with --state"
        ) from None
    with contextlib.suppress(OSError):  # only for others' messages: a full disk keeps no daemon from its own state
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{what} (process {os.getpid()})\n".encode())
    return StateLock(path, descriptor)


def _holder(descriptor: int) -> str:
    """Who has the lock, as far as its file says; only for the message, so a torn text does no harm."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = os.pread(descriptor, 200, 0).decode("utf-8").strip()
        if text and text.isprintable():
            return text
    return "another daemon"
