"""Who uses a version's directory: readers share a lock on it, and whoever wants to remove it must have it alone.

The lock is flock(2) on the open directory. The kernel drops it with the last copy of the descriptor, so that a reader
that dies leaves nothing behind; and a child of fork(2) holds its parent's lease for as long as it keeps its copy.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Lease:
    """A lock on a directory, until :meth:`release` or until nobody refers to it any more.

    ``descriptor`` is the open directory: what is opened relative to it comes from this directory, whatever its path
    names by then.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; more than once is no harm."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            # Never LOCK_UN: that would take the lock from a child that shares it.
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def share(directory: Path) -> Lease | None:
    """A reader's lease on ``directory``, or None when there is no such directory any more.

    Waits for whoever has it alone, which is never longer than a rename takes.
    """
    return _lock(directory, fcntl.LOCK_SH)


def claim(directory: Path) -> Lease | None:
    """The remover's lock on ``directory``, or None when there is no such directory or somebody uses it."""
    return _lock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)


def leased(directory: Path) -> bool:
    """Whether a reader holds ``directory`` at this moment."""
    if not directory.is_dir():
        return False
    probe = claim(directory)
    if probe is None:
        return True
    probe.release()
    return False


def _lock(directory: Path, how: int) -> Lease | None:
    try:
        lease = Lease(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lease.descriptor, how)
        # It may have been moved away between the opening and the locking.
        still_there = os.path.samestat(os.fstat(lease.descriptor), directory.stat())
    except (BlockingIOError, FileNotFoundError):
        still_there = False
    if still_there:
        return lease
    lease.release()
    return None
