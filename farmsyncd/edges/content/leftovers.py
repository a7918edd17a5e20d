"""What an earlier attempt left in a staging directory: what verifies is kept, everything else goes.

Nothing is believed because it is there: a crash may have left any length of a file, with any bytes. So it is read
and compared with the manifest, chunk by chunk - but for files that are hard links to those of a base, which are known
by their inodes. That also makes it cheap to begin with a tree of links that was made ahead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.parts import Plan
from farmsyncd.edges.content.basetree import BaseTree
from farmsyncd.edges.content.filecontent import good_chunks
from farmsyncd.edges.content.growing import GrowingTree, mode_of

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@attrs.frozen
class Kept:
    """What is good, by path: files that are complete, those that are linked, and of others the good chunks' offsets."""

    complete: set[bytes] = attrs.Factory(set)
    linked: set[bytes] = attrs.Factory(set)
    partial: dict[bytes, frozenset[int]] = attrs.Factory(dict)


def take_up(tree: GrowingTree, plan: Plan, bases: Sequence[BaseTree], check: Callable[[], None]) -> Kept:
    """Clear ``tree`` of what ``plan`` has no use for, and say what is good. ``check`` is called often, and may raise.

    Afterwards only directories and links of the plan, what is returned, and regular files with the names of shared
    ones are there.
    """
    survey = _Survey(tree, plan, bases)
    below = [b""] if names_in(tree.fd) else []
    while below:
        check()
        below.extend(survey.directory(below.pop()))
    return survey.kept


class _Survey:
    """Goes through a tree that is there, directory by directory."""

    def __init__(self, tree: GrowingTree, plan: Plan, bases: Sequence[BaseTree]) -> None:
        self.kept = Kept()
        self._tree = tree
        device = os.fstat(tree.fd).st_dev
        self._bases = [base if base.device == device else None for base in bases]
        self._expected = {entry.path: entry for entry in (*plan.directories, *plan.links, *plan.fresh)}
        self._shared = {item.entry.path: item for item in plan.shared}
        self._buffer = memoryview(bytearray(MAX_CHUNK))

    def directory(self, parent: bytes) -> list[bytes]:
        """Look at what is in the directory ``parent``; the directories in it that belong there."""
        fd = os.open(parent or b".", _DIRECTORY, dir_fd=self._tree.fd)
        try:
            os.fchmod(fd, 0o755)
            with os.scandir(fd) as listing:
                found = [
                    (one.name, one.is_dir(follow_symlinks=False), one.is_symlink(), one.inode()) for one in listing
                ]
        finally:
            os.close(fd)
        in_bases = [base.inodes(parent) if base and found else {} for base in self._bases]
        below: list[bytes] = []
        before = parent + b"/" if parent else b""
        for name, is_dir, is_symlink, inode in found:
            path = before + os.fsencode(name)
            same = [number for number, inodes in enumerate(in_bases) if inodes.get(name) == inode]
            if is_dir:
                if self._is(path, Kind.DIR):
                    below.append(path)
                else:
                    remove(self._tree.fd, path)
            elif is_symlink:
                self._link(path)
            else:
                self._file(path, same)
        return below

    def _is(self, path: bytes, kind: Kind) -> bool:
        entry = self._expected.get(path)
        return entry is not None and entry.kind is kind

    def _link(self, path: bytes) -> None:
        if not self._is(path, Kind.LINK) or os.readlink(path, dir_fd=self._tree.fd) != self._expected[path].target:
            self._tree.remove_file(path)

    def _file(self, path: bytes, same: Sequence[int]) -> None:
        """Something that is neither a directory nor a link; ``same`` are the bases that have it under this name."""
        item = self._shared.get(path)
        if item is not None:
            if item.base in same and item.path == path:
                self.kept.linked.add(path)
        elif same or not self._is(path, Kind.FILE):
            # What a base has under the name of a fresh file is another file: there is no need to read it.
            self._tree.remove_file(path)
        else:
            self._content(self._expected[path])

    def _content(self, entry: Entry) -> None:
        found = os.stat(entry.path, dir_fd=self._tree.fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
            self._tree.remove_file(entry.path)
            return
        fd = os.open(entry.path, _FILE, dir_fd=self._tree.fd)
        try:
            good = good_chunks(fd, entry, self._buffer)
            if len(good) == len(entry.chunks):
                finished = stat.S_IMODE(found.st_mode) == mode_of(entry) and found.st_mtime_ns == entry.mtime_ns
                if not finished and found.st_nlink == 1:
                    self._tree.complete(fd, entry)
                if finished or found.st_nlink == 1:
                    self.kept.complete.add(entry.path)
                    return
            # A file with other names is another version's too: it must not be written to.
            elif good and len(entry.chunks) > 1 and found.st_nlink == 1:
                self.kept.partial[entry.path] = good
                return
        finally:
            os.close(fd)
        self._tree.remove_file(entry.path)


def names_in(fd: int) -> list[bytes]:
    """The names in an open directory."""
    with os.scandir(fd) as found:
        return [os.fsencode(entry.name) for entry in found]


def remove(root: int, path: bytes) -> None:
    """Remove whatever ``path`` below the directory ``root`` is, with all that is in it."""
    try:
        os.unlink(path, dir_fd=root)
    except IsADirectoryError:
        fd = os.open(path, _DIRECTORY, dir_fd=root)
        try:
            os.fchmod(fd, 0o700)
            for name in names_in(fd):
                remove(fd, name)
        finally:
            os.close(fd)
        os.rmdir(path, dir_fd=root)
