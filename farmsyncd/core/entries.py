"""The entries of a tree, and the rules by which a tree may be written without touching anything outside of it.

The rules are checked wherever a manifest is made, so that no code which writes trees needs to doubt one:

- paths are relative, of parts that are neither empty, ``.`` nor ``..`` and hold no NUL; ascending, so none is twice;
- the parent of every entry is itself an entry, and a directory: nothing lies below a file or a link;
- links are relative and stay inside: each ``..`` leads out of a real directory of the tree, never out of its root;
- a file's chunks have plausible lengths, which add up to its size; only files have any of that.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from farmsyncd.core.chunks import DIGEST_SIZE
from farmsyncd.core.cutting import Cutting

MAX_NAME: Final = 255
"""Bytes of one part of a path, as file systems have it."""
MAX_PATH: Final = 3072
"""Bytes of a path: with a state directory before it, it must stay below the kernel's 4096."""
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_TIMES: Final = (-(1 << 62), 1 << 62)


class Kind(IntEnum):
    """What an entry is."""

    DIR = 0
    FILE = 1
    LINK = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One directory, file or link of a tree.

    A msgspec structure, and no attrs class, because a million of them are read and written at once. ``path`` is
    relative, with ``/`` between its parts. ``mode_exec`` and ``mtime_ns`` (since the Unix epoch) are those of files;
    so are ``chunks``, the BLAKE3 digests of the file's chunks in order, and ``lengths``, their sizes in bytes, which
    add up to ``size``. An empty file has no chunks. ``target`` is a link's text.
    """

    path: bytes
    kind: Kind
    mode_exec: bool = False
    mtime_ns: int = 0
    size: int = 0
    chunks: tuple[bytes, ...] = ()
    lengths: tuple[int, ...] = ()
    target: bytes = b""


def tree_fault(entries: Sequence[Entry], cutting: Cutting) -> str | None:
    """What makes ``entries`` no tree that could be written safely, or None."""
    fault = cutting.fault()
    directories = {b""}
    links: list[Entry] = []
    lengths: dict[bytes, int] = {}
    before = b""
    for entry in entries:
        if fault is not None:
            return fault
        path = entry.path
        if path <= before:
            return f"expected paths in ascending order, each once, and found {path[:80]!r} after {before[:80]!r}"
        before = path
        parent, _, name = path.rpartition(b"/")
        fault = _path_fault(path, parent, name, directories)
        if fault is not None:
            return fault
        if entry.kind is Kind.FILE:
            fault = _file_fault(entry, cutting, lengths)
            continue
        if entry.mode_exec or entry.mtime_ns or entry.size or entry.chunks or entry.lengths:
            return f"expected a mode, a time and chunks for files alone, and found them for {path[:80]!r}"
        if entry.kind is Kind.DIR:
            directories.add(path)
            fault = f"expected a target for links alone, and found one for {path[:80]!r}" if entry.target else None
        else:
            links.append(entry)
    if fault is not None:
        return fault
    return next(filter(None, (link_fault(link.path, link.target, directories) for link in links)), None)


def _path_fault(path: bytes, parent: bytes, name: bytes, directories: set[bytes]) -> str | None:
    # Only the last part needs a look: the parent is an entry, which was looked at before.
    if name in _NO_NAMES or len(name) > MAX_NAME or b"\0" in name or path[:1] == b"/":
        return f"expected a relative path of plain names, and found {path[:80]!r}"
    if len(path) > MAX_PATH:
        return f"expected a path of at most {MAX_PATH} bytes, and found one of {len(path)}: {path[:80]!r}"
    if parent not in directories:
        return f"expected an entry for the directory that {path[:80]!r} is in, and found none"
    return None


def _file_fault(entry: Entry, cutting: Cutting, lengths: dict[bytes, int]) -> str | None:
    if entry.target:
        return f"expected a target for links alone, and found one for {entry.path[:80]!r}"
    if len(entry.chunks) != len(entry.lengths) or sum(entry.lengths) != entry.size:
        return f"expected chunks that add up to the size of {entry.path[:80]!r}, and found others"
    if not _TIMES[0] <= entry.mtime_ns <= _TIMES[1]:
        return f"expected a modification time, and found {entry.mtime_ns} ns for {entry.path[:80]!r}"
    for digest, length in zip(entry.chunks, entry.lengths, strict=True):
        if len(digest) != DIGEST_SIZE or not 0 < length <= cutting.maximum:
            return f"expected chunks of 1 to {cutting.maximum} bytes, and found {length} in {entry.path[:80]!r}"
        if lengths.setdefault(digest, length) != length:
            return f"expected one length for each chunk, and found another in {entry.path[:80]!r}"
    return None


def link_fault(path: bytes, target: bytes, directories: Container[bytes]) -> str | None:
    """Why the link ``path`` to ``target`` does not stay inside the tree of ``directories`` (with b"" as root), or None.

    Each ``..`` must lead out of a real directory. Then the text says where the kernel would go: a link among the
    parts before it could have led anywhere.
    """
    if not target or target[:1] == b"/" or b"\0" in target or len(target) > MAX_PATH:
        return f"expected a relative link at {path[:80]!r}, and it leads to {target[:80]!r}"
    at = path.rpartition(b"/")[0]
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            at = at + b"/" + part if at else part
        elif not at:
            return f"expected a link that stays inside the tree at {path[:80]!r}, and it leads to {target[:80]!r}"
        elif at not in directories:
            return f"expected '..' after directories alone in the link {path[:80]!r}, and found {target[:80]!r}"
        else:
            at = at.rpartition(b"/")[0]
    return None
