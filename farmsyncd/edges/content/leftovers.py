"""What an earlier attempt left in a staging directory: what verifies is kept, everything else goes.

Nothing is believed because it is there: a crash may have left any length of a file, with any bytes. So whatever is
not linked again anyway is read and compared with the manifest, chunk by chunk.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.parts import Plan
from farmsyncd.edges.content.growing import GrowingTree, mode_of

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@attrs.frozen
class Kept:
    """Paths of files that are complete, and for others of several chunks the offsets of those that are right."""

    complete: set[bytes] = attrs.Factory(set)
    partial: dict[bytes, frozenset[int]] = attrs.Factory(dict)


def take_up(tree: GrowingTree, plan: Plan, check: Callable[[], None]) -> Kept:
    """Clear ``tree`` of what ``plan`` has no use for, and say what is good. ``check`` is called often, and may raise.

    Afterwards only directories and links of the plan, the fresh files that are returned, and regular files with the
    names of shared ones are there.
    """
    kept = Kept()
    if not names_in(tree.fd):
        return kept
    expected = {entry.path: entry for entry in (*plan.directories, *plan.links, *plan.fresh)}
    shared = {item.entry.path for item in plan.shared}
    buffer = memoryview(bytearray(MAX_CHUNK))
    for path, mode in _walk(tree.fd, b""):
        check()
        entry = expected.get(path)
        if path in shared and stat.S_ISREG(mode):
            continue
        if entry is None or not _fits(tree.fd, entry, mode):
            remove(tree.fd, path)
        elif entry.kind is Kind.FILE:
            _survey(tree, entry, buffer, kept)
    return kept


def _walk(root: int, parent: bytes) -> Iterator[tuple[bytes, int]]:
    """Every path below ``parent`` and its mode; directories before what is in them, which may be removed meanwhile."""
    try:
        fd = os.open(parent or b".", _DIRECTORY, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        os.fchmod(fd, 0o755)
        names = names_in(fd)
        modes = [os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode for name in names]
    finally:
        os.close(fd)
    for name, mode in zip(names, modes, strict=True):
        path = parent + b"/" + name if parent else name
        yield path, mode
        if stat.S_ISDIR(mode):
            yield from _walk(root, path)


def names_in(fd: int) -> list[bytes]:
    """The names in an open directory."""
    with os.scandir(fd) as found:
        return [os.fsencode(entry.name) for entry in found]


def _fits(root: int, entry: Entry, mode: int) -> bool:
    if entry.kind is Kind.DIR:
        return stat.S_ISDIR(mode)
    if entry.kind is Kind.FILE:
        return stat.S_ISREG(mode)
    return stat.S_ISLNK(mode) and os.fsencode(os.readlink(entry.path, dir_fd=root)) == entry.target


def _survey(tree: GrowingTree, entry: Entry, buffer: memoryview, kept: Kept) -> None:
    fd = os.open(entry.path, _FILE, dir_fd=tree.fd)
    try:
        found = os.fstat(fd)
        good = good_chunks(fd, entry, buffer) if found.st_size == entry.size else frozenset()
        if len(good) == len(entry.chunks) and found.st_size == entry.size:
            finished = stat.S_IMODE(found.st_mode) == mode_of(entry) and found.st_mtime_ns == entry.mtime_ns
            if not finished and found.st_nlink == 1:
                tree.complete(fd, entry)
            if finished or found.st_nlink == 1:
                kept.complete.add(entry.path)
                return
        # A file with other names is another version's too: it must not be written to.
        elif good and len(entry.chunks) > 1 and found.st_nlink == 1:
            kept.partial[entry.path] = good
            return
    finally:
        os.close(fd)
    tree.remove_file(entry.path)


def good_chunks(fd: int, entry: Entry, buffer: memoryview) -> frozenset[int]:
    """The offsets of those chunks of a file that are what they should be; ``buffer`` has room for the largest."""
    good: set[int] = set()
    offset = 0
    for digest, length in zip(entry.chunks, entry.lengths, strict=True):
        piece = buffer[:length]
        with contextlib.suppress(OSError):
            if read_into(fd, offset, piece) and digest_of(piece) == digest:
                good.add(offset)
        offset += length
    return frozenset(good)


def read_into(fd: int, offset: int, buffer: memoryview) -> bool:
    """Fill ``buffer`` from ``offset`` of a file; False where the file ends before."""
    while buffer:
        got = os.preadv(fd, [buffer], offset)
        if not got:
            return False
        buffer, offset = buffer[got:], offset + got
    return True


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
