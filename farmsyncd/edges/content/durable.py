"""What it takes for bytes to survive a crash: whole writes, and syncing of files, directories and file systems."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farmsyncd.errors import LocalError, Unavailable

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_IOV_MAX: Final = 1024
_SYNC_FILE_RANGE_WRITE: Final = 2
_SYNC_FILE_RANGE_ALL: Final = 7  # wait for what is being written, write what is not, wait again
UNFINISHED: Final = ".new"
"""The end of the name that a file has until it is whole: what a crash leaves of it may be removed."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def failure(error: OSError, doing: str, path: Path) -> LocalError:
    """What to raise for ``error``, met while ``doing`` something with ``path``: Unavailable when the disk is full."""
    if error.errno in _FULL:
        return Unavailable(f"expected room for {doing} {path}, and the disk is full: free some space and try again")
    return LocalError(f"{doing} {path} failed: {error.strerror or error}")


def write_all(fd: int, pieces: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write all of ``pieces`` to ``fd``, however few of them the kernel takes at a time; the bytes written."""
    left = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    total = sum(len(piece) for piece in left)
    done = 0
    while done < len(left):
        wrote = os.writev(fd, left[done : done + _IOV_MAX])
        while wrote:
            if wrote < len(left[done]):
                left[done] = left[done][wrote:]
                break
            wrote -= len(left[done])
            done += 1
    return total


def sync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(fd: int) -> None:
    """Make everything written so far to the file system that ``fd`` is on durable: one call for a whole tree."""
    if _LIBC.syncfs(ctypes.c_int(fd)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writing(fd: int, offset: int, length: int) -> None:
    """Have the disk begin to write this range of ``fd`` now, so that a later sync has less to wait for.

    Only a hint: file systems which do not know it are left to their own pace.
    """
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def give_back(fd: int, offset: int, length: int) -> None:
    """Wait until the disk has this range of ``fd``, and give back the memory that it takes.

    Nothing is durable by that: what the disk failed at is told by a later sync. Only a hint, too.
    """
    _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_ALL)
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def _sync_file_range(fd: int, offset: int, length: int, flags: int) -> None:
    _LIBC.sync_file_range(ctypes.c_int(fd), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(flags))


def write_file(path: Path, *pieces: bytes | bytearray | memoryview, mode: int = 0o644) -> None:
    """Replace ``path`` by a file of ``pieces``, durably: after a crash it is the old one or this one, whole."""
    temporary = path.with_name(path.name + UNFINISHED)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            write_all(fd, pieces)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise failure(error, "writing", path) from error
