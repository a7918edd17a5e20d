"""Is a tree still what its manifest says? Asked at each start of a node, before anything is served or linked.

The quick look compares names, kinds, sizes, times and permissions; the deep one reads every byte as well.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import local
from typing import Final

from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.crew import Crew
from farmsyncd.edges.content.filecontent import good_chunks
from farmsyncd.edges.content.growing import mode_of
from farmsyncd.edges.content.leftovers import names_in

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BATCH: Final = 64
_WRITABLE: Final = 0o222


def verify(
    manifest: Manifest,
    path: Path,
    *,
    deep: bool = False,
    workers: int = 2,
    throttle: Callable[[int], None] = lambda _amount: None,
) -> list[bytes]:
    """The paths, sorted, of what is missing from the tree at ``path``, is other than it should be, or does not belong.

    An empty list means that the tree is right; a tree that is not there at all gives ``[b""]``. ``throttle`` is
    called with the bytes read, in every thread, and may sleep or raise. Raises LocalError if the disk cannot be read.
    """
    try:
        root = os.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return [b""]
    except OSError as error:
        raise durable.failure(error, "reading", path) from error
    try:
        expected = {entry.path: entry for entry in manifest.entries}
        damaged = [name for name, fits in _look(root, b"", expected) if not fits]
        damaged.extend(expected)  # what was found has been taken out
        if deep:
            known = set(damaged)
            sound = [entry for entry in manifest.entries if entry.size and entry.path not in known]
            damaged.extend(_read(root, sound, workers, throttle))
    except OSError as error:
        raise durable.failure(error, "reading", path) from error
    finally:
        os.close(root)
    return sorted(damaged)


def _look(root: int, parent: bytes, expected: dict[bytes, Entry]) -> Iterator[tuple[bytes, bool]]:
    """Every path below ``parent`` and whether it is as expected, each taken out of ``expected``."""
    fd = os.open(parent or b".", _DIRECTORY, dir_fd=root)
    below: list[bytes] = []
    try:
        for name in names_in(fd):
            path = parent + b"/" + name if parent else name
            entry = expected.pop(path, None)
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if entry is None:
                yield path, False
            elif entry.kind is Kind.FILE:
                mode = stat.S_IFREG | mode_of(entry)
                yield path, (found.st_size, found.st_mtime_ns, found.st_mode) == (entry.size, entry.mtime_ns, mode)
            elif entry.kind is Kind.DIR:
                yield path, stat.S_ISDIR(found.st_mode) and not found.st_mode & _WRITABLE
                if stat.S_ISDIR(found.st_mode):
                    below.append(path)
            else:
                yield path, stat.S_ISLNK(found.st_mode) and os.readlink(name, dir_fd=fd) == entry.target
    finally:
        os.close(fd)
    for path in below:
        yield from _look(root, path, expected)


def _read(root: int, entries: Sequence[Entry], workers: int, throttle: Callable[[int], None]) -> list[bytes]:
    """The paths of those files that hold other bytes than they should, or cannot be read."""
    damaged: list[bytes] = []
    own = local()

    def read(batch: Sequence[Entry]) -> None:
        buffer: memoryview | None = getattr(own, "buffer", None)
        if buffer is None:
            buffer = own.buffer = memoryview(bytearray(MAX_CHUNK))
        for entry in batch:
            fd = os.open(entry.path, _FILE, dir_fd=root)
            try:
                if len(good_chunks(fd, entry, buffer)) != len(entry.chunks):
                    damaged.append(entry.path)
            finally:
                os.close(fd)
            throttle(entry.size)

    crew = Crew(workers)
    try:
        crew.share(read, [entries[at : at + _BATCH] for at in range(0, len(entries), _BATCH)])
    finally:
        crew.close()
    return damaged
