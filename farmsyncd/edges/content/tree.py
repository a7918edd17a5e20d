"""Reading a directory into a manifest.

The tree is walked once, then its files are read by a few threads: opening, hashing and cutting release the
interpreter's lock. A file that changes while it is read is read again, and so is a tree to which names are added or
taken away; what does not hold still is refused. All faults are found before any is told.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

import attrs

from farmsyncd.core import cutting as cuts
from farmsyncd.core.cutting import Cutting
from farmsyncd.core.entries import MAX_PATH, link_fault
from farmsyncd.core.snapshot import Entry, Kind, Manifest
from farmsyncd.edges.content.filereading import Changed, FileReader, Read
from farmsyncd.edges.content.treecache import TreeCache
from farmsyncd.errors import BadInput

Progress = Callable[[int, int], None]
"""Told of files and bytes read so far, in the thread that asked for the scan."""

_ATTEMPTS: Final = 4
_NAMED: Final = 20
_BATCH_BYTES: Final = 4 * 1024 * 1024
_BATCH_FILES: Final = 64


@attrs.frozen
class Scanned:
    """A tree that was read: where it is, and its manifest. ``cache`` is told when a file proves to be another."""

    root: bytes
    manifest: Manifest
    cache: TreeCache | None = attrs.field(default=None, repr=False)


@attrs.define
class Faults:
    """What is wrong with a tree, to be told at once."""

    root: bytes
    _told: list[str] = attrs.Factory(list)
    _count: int = 0

    def add(self, path: bytes, what: str) -> None:
        """Note that ``what`` is wrong with ``path``."""
        self._count += 1
        if self._count <= _NAMED:
            self._told.append(f"{spelled(path)}: {what}" if path else what)

    def tell(self) -> None:
        """Raise BadInput if there are any."""
        if not self._count:
            return
        more = [f"... and {self._count - _NAMED} more"] if self._count > _NAMED else []
        what = self._told[0] if self._count == 1 else "\n  ".join([f"{self._count} faults:", *self._told, *more])
        raise BadInput(f"{spelled(self.root)} cannot be published: {what}")


@attrs.define
class _Walk:
    """What a walk through a tree found, each path relative to the tree."""

    faults: Faults
    directories: dict[bytes, int] = attrs.Factory(dict)  # with the time of the last change to their names
    files: list[tuple[bytes, os.stat_result]] = attrs.Factory(list)
    links: list[tuple[bytes, bytes]] = attrs.Factory(list)
    unsettled: list[bytes] = attrs.Factory(list)  # directories from which a name vanished before it was looked at


def scan(
    path: Path,
    progress: Progress = lambda _files, _bytes: None,
    cache: TreeCache | None = None,
    cutting: Cutting = cuts.DEFAULT,
    threads: int | None = None,
) -> Scanned:
    """Read the directory ``path``; blocks, and may take long.

    Raises BadInput naming up to 20 of all faults: no such directory, what cannot be read, devices, sockets and pipes,
    links that leave the tree, files that do not hold still.
    """
    root = os.fsencode(path.resolve())
    _expect_directory(path)
    if cache is not None:
        cache.begin(root, cutting)
    for attempt in range(_ATTEMPTS):
        walk = _walk(root)
        walk.faults.tell()
        entries = [Entry(name, Kind.DIR) for name in walk.directories if name]
        entries += [Entry(name, Kind.LINK, target=target) for name, target in walk.links]
        entries += _read_files(root, walk, FileReader(cutting), cache, progress, threads or thread_count())
        moved = _changed_directories(root, walk)
        if not moved:
            walk.faults.tell()
            break
        time.sleep(0.05 * (attempt + 1))
    else:
        for name in moved:
            walk.faults.add(
                name, "files come and go in this directory while it is read; publish a copy that is at rest"
            )
        walk.faults.tell()
    if cache is not None:
        cache.save({name for name, _found in walk.files})
    return Scanned(root, Manifest.of(entries, cutting), cache)


def thread_count() -> int:
    """How many threads to read or pack with: more than a few only get in each other's way."""
    return min(4, len(os.sched_getaffinity(0)))


def spelled(path: bytes) -> str:
    """``path`` for people to read, whatever its bytes: in one line, and without commands for their terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in os.fsdecode(path)
    )


def unreadable(error: OSError) -> str:
    """What is wrong with something that could not be read, and what to do."""
    what = f"cannot be read: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return f"{what}; check the path"
    return f"{what}; let this user read it" if isinstance(error, PermissionError) else what


def under(directory: bytes, name: bytes) -> bytes:
    """The path ``name`` in ``directory``; either may be empty. Not ``pathlib``'s business: names are bytes here."""
    return directory + b"/" + name if directory and name else directory or name


def _expect_directory(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise BadInput(f"expected a directory at {path}, and it {unreadable(error)}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise BadInput(f"expected a directory at {path}, and found something else: publish the directory it is in")


def _walk(root: bytes) -> _Walk:
    walk = _Walk(Faults(root))
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        full = under(root, directory)
        try:
            walk.directories[directory] = os.lstat(full).st_mtime_ns
            with os.scandir(full) as found:
                for item in found:
                    name = under(directory, item.name)
                    if _note(walk, directory, name, item):
                        waiting.append(name)
        except FileNotFoundError:
            walk.unsettled.append(directory)
        except OSError as error:
            walk.faults.add(directory, unreadable(error))
    for name, target in walk.links:
        fault = link_fault(name, target, walk.directories.keys())
        if fault is not None:
            walk.faults.add(
                name,
                f"expected a link that stays inside the tree, and it leads to {spelled(target)}; "
                "put what it leads to in its place, or remove it",
            )
    return walk


def _note(walk: _Walk, directory: bytes, name: bytes, item: os.DirEntry[bytes]) -> bool:
    """Note one name of a directory; whether it is a directory in turn."""
    if len(name) > MAX_PATH:
        walk.faults.add(name, f"expected paths of at most {MAX_PATH} bytes, and this one has {len(name)}")
        return False
    try:
        found = item.stat(follow_symlinks=False)
        target = os.readlink(item.path) if stat.S_ISLNK(found.st_mode) else b""  # noqa: PTH115 - bytes
    except FileNotFoundError:
        walk.unsettled.append(directory)
        return False
    if stat.S_ISREG(found.st_mode):
        walk.files.append((name, found))
    elif stat.S_ISLNK(found.st_mode):
        walk.links.append((name, target))
    elif not stat.S_ISDIR(found.st_mode):
        walk.faults.add(
            name,
            f"expected files, directories and links, and this is a {_sort(found.st_mode)}; "
            "remove it, or publish a directory without it",
        )
    return stat.S_ISDIR(found.st_mode)


def _sort(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _read_files(
    root: bytes, walk: _Walk, reader: FileReader, cache: TreeCache | None, progress: Progress, threads: int
) -> Iterator[Entry]:
    done_files = done_bytes = 0
    unknown: list[tuple[bytes, os.stat_result]] = []
    for name, found in walk.files:
        known = cache.get(name, found) if cache is not None else None
        if known is None:
            unknown.append((name, found))
        else:
            done_files, done_bytes = done_files + 1, done_bytes + known.size
            yield _entry(name, Read(found, known.chunks, known.lengths))
    progress(done_files, done_bytes)
    with ThreadPoolExecutor(threads, "reading") as pool:
        waiting: set[Future[list[tuple[bytes, Read | str]]]] = set()
        batches = _batches(unknown)
        more = True
        while waiting or more:
            while more and len(waiting) < 2 * threads:
                batch = next(batches, None)
                more = batch is not None
                if batch is not None:
                    waiting.add(pool.submit(_read_batch, reader, root, batch))
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for name, read in (pair for future in finished for pair in future.result()):
                if isinstance(read, str):
                    walk.faults.add(name, read)
                    continue
                done_files, done_bytes = done_files + 1, done_bytes + read.found.st_size
                if cache is not None:
                    cache.put(name, read.found, read.chunks, read.lengths)
                yield _entry(name, read)
            progress(done_files, done_bytes)


def _batches(files: list[tuple[bytes, os.stat_result]]) -> Iterator[list[bytes]]:
    """The files in batches that are worth a thread's while, the large ones first."""
    files.sort(key=lambda pair: -pair[1].st_size)
    batch: list[bytes] = []
    size = 0
    for name, found in files:
        batch.append(name)
        size += found.st_size
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_batch(reader: FileReader, root: bytes, names: list[bytes]) -> list[tuple[bytes, Read | str]]:
    results: list[tuple[bytes, Read | str]] = []
    for name in names:
        try:
            results.append((name, reader.read(under(root, name))))
        except Changed:
            results.append((name, "it changes while it is read; publish a copy that is at rest"))
        except OSError as error:
            results.append((name, unreadable(error)))
    return results


def _entry(name: bytes, read: Read) -> Entry:
    found = read.found
    executable = bool(found.st_mode & stat.S_IXUSR)
    return Entry(name, Kind.FILE, executable, found.st_mtime_ns, found.st_size, read.chunks, read.lengths)


def _changed_directories(root: bytes, walk: _Walk) -> list[bytes]:
    changed = list(walk.unsettled)
    for name, mtime_ns in walk.directories.items():
        try:
            if os.lstat(under(root, name)).st_mtime_ns != mtime_ns:
                changed.append(name)
        except OSError:
            changed.append(name)
    return changed
