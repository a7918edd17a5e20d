"""Large files of a version on its way in do not stay in memory as they are written: they are read in later, in peace.

Whoever serves them when their time has come then finds them in memory, and so does the next version's staging, which
copies from them. Nothing depends on it.

They are read, not only asked for in advance: under a hypervisor, memory that the disk has filled is slow to get at the
first time a processor touches it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content import writeback

STEP: Final = 2 * 1024 * 1024
"""Bytes that are read at once."""
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_in(root: Path, manifest: Manifest, room: int, rest: Callable[[int], None]) -> int:
    """Read the large files that came with a version at ``root``, so that they are in memory; how many bytes.

    Not those that other versions have too: they are in memory if anybody reads them. Files that do not fit into
    ``room`` bytes are left out. ``rest`` is called after each few bytes with their number, and may sleep or raise.
    """
    total = 0
    for entry in manifest.entries:
        if entry.size >= writeback.LARGE and total + entry.size <= room:
            with contextlib.suppress(OSError):  # it has gone meanwhile, or cannot be read: others will notice
                total += _read_in(Path(root, os.fsdecode(entry.path)), rest)
    return total


def _read_in(path: Path, rest: Callable[[int], None]) -> int:
    fd = os.open(path, _FILE)
    try:
        found = os.fstat(fd)
        if found.st_nlink > 1:
            return 0
        buffer = bytearray(STEP)
        for at in range(0, found.st_size, STEP):
            os.preadv(fd, [buffer], at)
            rest(STEP)
        return found.st_size
    finally:
        os.close(fd)


def room(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes of memory that may be taken for this: a quarter of what is to be had without hardship; 0 if unknown."""
    try:
        for line in meminfo.read_bytes().splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024 // 4
    except (OSError, ValueError, IndexError):
        pass
    return 0
