"""Full disks, foreseen: what a version will take, compared with what is free, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from farmsyncd.core import parts
from farmsyncd.core.entries import Entry
from farmsyncd.core.parts import Plan
from farmsyncd.core.snapshot import Manifest
from farmsyncd.errors import Unavailable

BLOCK: Final = 4096
RESERVE: Final = 16 * 1024 * 1024
"""Bytes that stay free: for the file system's own records of many new names, and for the daemon's."""


@attrs.frozen
class Need:
    """Bytes on the disk, in whole blocks, and files (inodes)."""

    size: int
    files: int


def required(manifest: Manifest, bases: Sequence[Manifest] = ()) -> Need:
    """What a tree of ``manifest`` takes beside trees of ``bases``, whose unchanged files are only linked."""
    return of_plan(parts.plan(manifest, bases))


def of_plan(plan: Plan, there: Iterable[Entry] = ()) -> Need:
    """What a plan takes; files that are ``there`` already, if only in part, have their room."""
    laid_out = {entry.path for entry in there}
    fresh = [entry for entry in plan.fresh if entry.path not in laid_out]
    others = len(plan.directories) + len(plan.links)
    return Need(sum(map(on_disk, fresh)) + others * BLOCK, len(fresh) + others)


def on_disk(entry: Entry) -> int:
    """Bytes that a file's content takes, in whole blocks."""
    return -(-entry.size // BLOCK) * BLOCK


def free(path: Path) -> Need:
    """What is free for this process on the file system of ``path``, or of the nearest parent that is there.

    File systems that have no fixed number of inodes report none: then files are as good as unlimited.
    """
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return Need(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else 1 << 62)


def foresee(need: Need, path: Path, reserve: int = RESERVE) -> None:
    """Raise Unavailable, with what is needed and what is free, when ``need`` will not fit beside ``reserve`` bytes."""
    has = free(path)
    if need.size + reserve > has.size:
        raise Unavailable(
            f"expected {readable(need.size + reserve)} free for {path}, and {readable(has.size)} are: free "
            f"{readable(need.size + reserve - has.size)} or more and try again"
        )
    if need.files > has.files:
        raise Unavailable(
            f"expected {need.files} free inodes for {path}, and {has.files} are: remove files and try again"
        )


def readable(size: int) -> str:
    """Bytes for people: ``540.0 MB``."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
