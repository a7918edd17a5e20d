"""The tree that grows in a staging directory: how files, directories and links are written.

Everything is relative to the descriptor of the tree's root, and nothing is ever followed or overwritten: paths come
from a manifest, which holds no path that leads elsewhere, and new files are made with O_EXCL and O_NOFOLLOW.

A file of one chunk is written in one go and has its modification time last. A larger one is laid out at its full
size first, so that a full disk is met at once and the disk has it in one piece, and gets its chunks in any order.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farmsyncd.core.chunks import Buffer
from farmsyncd.core.entries import Entry
from farmsyncd.edges.content import durable, writeback
from farmsyncd.edges.content.settling import Settling
from farmsyncd.edges.content.writeback import Writeback

FILE_MODE: Final = 0o444
EXEC_MODE: Final = 0o555
DIR_MODE: Final = 0o555
_GROWING_DIR_MODE: Final = 0o755
_GROWING_FILE_MODE: Final = 0o644
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def mode_of(entry: Entry) -> int:
    """The permissions of a file in a complete tree."""
    return EXEC_MODE if entry.mode_exec else FILE_MODE


class GrowingTree:
    """The tree under ``path``, which is made when it is not there. Methods may be called from several threads.

    Raises OSError wherever the file system refuses something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=_GROWING_DIR_MODE, parents=True, exist_ok=True)
        self.fd = os.open(path, _ROOT)
        # A mask that hides what is to be readable (twistd sets one) is undone file by file; else that is saved.
        self._masked = bool(_umask() & EXEC_MODE)
        self._settling = Settling(self.fd)
        self._writebacks: dict[bytes, Writeback] = {}

    def close(self) -> None:
        """Let go of the directory; again does nothing."""
        self._settling.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def make_directory(self, entry: Entry) -> None:
        """Make a directory, writable while the tree grows; one that is there already is left."""
        try:
            os.mkdir(entry.path, _GROWING_DIR_MODE, dir_fd=self.fd)
        except FileExistsError:
            os.chmod(entry.path, _GROWING_DIR_MODE, dir_fd=self.fd)

    def make_link(self, entry: Entry) -> None:
        """Make a symbolic link; one that is there already is left, for it was found to be right."""
        with contextlib.suppress(FileExistsError):
            os.symlink(entry.target, entry.path, dir_fd=self.fd)

    def write_whole(self, entry: Entry, data: Buffer) -> None:
        """Write a file of at most one chunk; all of it, or nothing is there."""
        fd = os.open(entry.path, _NEW, mode_of(entry), dir_fd=self.fd)
        try:
            size = len(data)
            if size and os.write(fd, data) != size:
                os.lseek(fd, 0, os.SEEK_SET)
                durable.write_all(fd, [data])
            if self._masked:
                os.fchmod(fd, mode_of(entry))
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except BaseException:
            self.remove_file(entry.path)
            raise
        finally:
            os.close(fd)
        self._settling.wrote(size)

    def lay_out(self, entry: Entry, missing: int, *, there: bool = False) -> None:
        """Make a file of several chunks at its full size, ``missing`` of which are to be written.

        With ``there`` it is a file that an earlier attempt laid out.
        """
        self._writebacks[entry.path] = Writeback(missing, passing=entry.size >= writeback.LARGE)
        if there:
            os.chmod(entry.path, _GROWING_FILE_MODE, dir_fd=self.fd)
            return
        fd = os.open(entry.path, _NEW, _GROWING_FILE_MODE, dir_fd=self.fd)
        try:
            allocate(fd, entry.size)
        except BaseException:
            self.remove_file(entry.path)
            raise
        finally:
            os.close(fd)

    def write_at(self, entry: Entry, offset: int, data: Buffer) -> None:
        """Write one chunk of a file that was laid out; the last one completes it."""
        fd = os.open(entry.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            view, at = memoryview(data), offset
            while view:
                wrote = os.pwrite(fd, view, at)
                view, at = view[wrote:], at + wrote
            if self._writebacks[entry.path].wrote(fd, offset, len(data)):
                self.complete(fd, entry)
        finally:
            os.close(fd)

    def complete(self, fd: int, entry: Entry) -> None:
        """Give a file that has all its bytes its final permissions and time."""
        os.fchmod(fd, mode_of(entry))
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def remove_file(self, path: bytes) -> None:
        """Remove what is no directory, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path, dir_fd=self.fd)

    def seal(self, directories: Sequence[Entry]) -> None:
        """Make the directories of a complete tree read-only, its root included."""
        for entry in directories:
            os.chmod(entry.path, DIR_MODE, dir_fd=self.fd)
        os.fchmod(self.fd, DIR_MODE)

    def sync(self) -> None:
        """Make the whole tree durable."""
        self._settling.settle()


def allocate(fd: int, size: int) -> None:
    """Give an empty file ``size`` bytes, and the room for them where the file system can promise it."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(fd, size)


def _umask() -> int:
    """The file mode creation mask, which can be asked for in no other way without changing it."""
    try:
        for line in Path("/proc/self/status").read_bytes().splitlines():
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        pass
    return 0o777
