"""Whether a version's tree on the disk is what its manifest says. Blocks: for worker threads."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import blake3

from farmsyncd.core.snapshot import Entry, Kind, Manifest


def by_stat(path: Path, manifest: Manifest) -> str:
    """What is wrong with the tree, by names, kinds, sizes and modification times: the first fault, or empty text."""
    expected: dict[bytes, dict[bytes, Entry]] = {b"": {}}
    for entry in manifest.entries:
        parent, _, name = entry.path.rpartition(b"/")
        expected[parent][name] = entry
        if entry.kind is Kind.DIR:
            expected[entry.path] = {}
    root = os.fsencode(path)
    for directory, entries in expected.items():
        name, fault = _directory_fault(os.path.join(root, directory), entries)  # noqa: PTH118 - names are bytes
        if fault:
            return f"{os.fsdecode(directory + b'/' + name if directory else name)} {fault}"
    return ""


def by_hash(path: Path, manifest: Manifest) -> str:
    """The same, and every byte of every file is read."""
    fault = by_stat(path, manifest)
    if fault:
        return fault
    root = os.fsencode(path)
    for entry in manifest.entries:
        if entry.kind is Kind.FILE and entry.size and not _content_is_right(root + b"/" + entry.path, entry):
            return f"{os.fsdecode(entry.path)} has other bytes than were published"
    return ""


def _directory_fault(directory: bytes, entries: dict[bytes, Entry]) -> tuple[bytes, str]:
    """The first name in which a directory is not what it should be, and what is wrong with that."""
    missing = dict(entries)
    with os.scandir(directory) as found:
        for one in found:
            entry = missing.pop(one.name, None)
            fault = "does not belong there" if entry is None else _entry_fault(one, entry)
            if fault:
                return one.name, fault
    return (next(iter(missing)), "is missing") if missing else (b"", "")


def _entry_fault(found: os.DirEntry[bytes], entry: Entry) -> str:
    if entry.kind is Kind.DIR:
        return "" if found.is_dir(follow_symlinks=False) else "should be a directory"
    if entry.kind is Kind.LINK:
        right = found.is_symlink() and os.readlink(found.path) == entry.target  # noqa: PTH115 - names are bytes
        return "" if right else "should be another link"
    return _file_fault(found.stat(follow_symlinks=False), entry)


def _file_fault(status: os.stat_result, entry: Entry) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "should be a file"
    if status.st_size != entry.size:
        return f"has {status.st_size} bytes instead of {entry.size}"
    if status.st_mtime_ns != entry.mtime_ns:
        return "was changed after it was staged"
    if bool(status.st_mode & 0o111) != entry.mode_exec:
        return "has another executable bit"
    return ""


def _content_is_right(path: bytes, entry: Entry) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size != entry.size:
            return False
        with mmap.mmap(descriptor, entry.size, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            at = 0
            for digest, length in zip(entry.chunks, entry.lengths, strict=True):
                with view[at : at + length] as piece:
                    if blake3.blake3(piece).digest() != digest:
                        return False
                at += length
    finally:
        os.close(descriptor)
    return True
