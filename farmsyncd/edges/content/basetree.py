"""A complete older version on this machine's disk, from which a new one takes what did not change.

Whole files are hard linked, and for that only looked at: their content was verified when they were staged and is
verified again at each start of the node. Chunks of files that did change are read and verified.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.parts import Shared, Source
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content.filecontent import read_into
from farmsyncd.edges.content.growing import GrowingTree, mode_of

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OUR_FAULT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})


@attrs.frozen
class Base:
    """A complete version: its manifest and where its tree is."""

    manifest: Manifest
    path: Path


class BaseTree:
    """The tree of a base. Methods may be called from several threads."""

    def __init__(self, base: Base) -> None:
        self.manifest = base.manifest
        self.device: int | None = None
        try:
            self.fd = os.open(base.path, _DIRECTORY)
            self.device = os.fstat(self.fd).st_dev
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise
            self.fd = -1  # every look into it fails from now on, as if each of its files were damaged

    def close(self) -> None:
        """Let go of the directory; again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def inodes(self, parent: bytes) -> dict[str, int]:
        """The inodes of what is in one of its directories, by name as the system says it; empty without that one."""
        try:
            fd = os.open(parent or b".", _DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise
            return {}
        try:
            with os.scandir(fd) as found:
                return {one.name: one.inode() for one in found}
        finally:
            os.close(fd)

    def link_into(self, tree: GrowingTree, shared: Sequence[Shared]) -> list[Shared]:
        """Hard link files of one directory into one directory of ``tree``; those that cannot be linked.

        A file cannot be when it is not what it was (size, time, permissions), has as many links as the file system
        allows, or lies on another file system. Raises OSError when the new tree cannot be written.
        """
        parent = shared[0].path.rpartition(b"/")[0]
        target_parent = shared[0].entry.path.rpartition(b"/")[0]
        try:
            source = os.open(parent or b".", _DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise
            return list(shared)
        try:
            target = os.open(target_parent or b".", _DIRECTORY, dir_fd=tree.fd)
            try:
                return _link(source, target, shared)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def read(self, source: Source, digest: bytes, buffer: memoryview) -> memoryview | None:
        """The chunk ``digest``, read into ``buffer`` from where it should lie; None if it is not there."""
        try:
            fd = os.open(source.path, _FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise
            return None
        try:
            data = buffer[: source.length]
            return data if read_into(fd, source.offset, data) and digest_of(data) == digest else None
        except OSError:  # a sector that cannot be read: the chunk can be had elsewhere
            return None
        finally:
            os.close(fd)


def _link(source: int, target: int, shared: Sequence[Shared]) -> list[Shared]:
    refused: list[Shared] = []
    for item in shared:
        entry = item.entry
        name = item.path.rpartition(b"/")[2]
        new = name if item.path is entry.path else entry.path.rpartition(b"/")[2]
        try:
            found = os.stat(name, dir_fd=source, follow_symlinks=False)
            if (found.st_size, found.st_mtime_ns, found.st_mode) != (
                entry.size,
                entry.mtime_ns,
                stat.S_IFREG | mode_of(entry),
            ):
                refused.append(item)
                continue
            try:
                os.link(name, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except FileExistsError:
                os.unlink(new, dir_fd=target)
                os.link(name, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno in _OUR_FAULT:
                raise
            refused.append(item)
    return refused
