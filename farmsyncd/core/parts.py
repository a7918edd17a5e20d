"""Where the bytes of a new version come from: what a node has already, and what it must be sent.

A pure planner. Unchanged files are *shared* with a complete older version (a base). All others are *fresh*: they are
put together from chunks, some of which lie in files of a base and the rest of which must be brought in.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TypeAlias

import attrs
import msgspec

from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.snapshot import Manifest

Place: TypeAlias = tuple[Entry, int]
"""A file of the new version, and the byte of it at which a chunk belongs."""


class Shared(msgspec.Struct, frozen=True, gc=False):
    """A file of the new version, ``entry``, that is ``path`` in base number ``base``, byte for byte.

    A msgspec structure, as :class:`Source` and entries are: there is one for each file.
    """

    entry: Entry
    base: int
    path: bytes


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where a chunk lies on this machine: ``length`` bytes from ``offset`` of the file ``path`` in base ``base``."""

    base: int
    path: bytes
    offset: int
    length: int


@attrs.frozen
class Plan:
    """How a tree comes about. Directories stand before what is in them."""

    directories: tuple[Entry, ...]
    links: tuple[Entry, ...]
    shared: tuple[Shared, ...]
    fresh: tuple[Entry, ...]


def plan(new: Manifest, bases: Sequence[Manifest]) -> Plan:
    """What of ``new`` can be shared with ``bases``, earlier ones preferred, and what cannot.

    A file is shared when its content, its modification time and its executable bit are those of a file in a base:
    the one of the same name, or failing that any other.
    """
    directories: list[Entry] = []
    links: list[Entry] = []
    shared: list[Shared] = []
    fresh: list[Entry] = []
    by_path = [{entry.path: entry for entry in base.entries} for base in bases]
    for entry in new.entries:
        if entry.kind is Kind.FILE:
            path = entry.path
            for number, names in enumerate(by_path):
                if names.get(path) == entry:
                    shared.append(Shared(entry, number, path))
                    break
            else:
                fresh.append(entry)
        else:
            (directories if entry.kind is Kind.DIR else links).append(entry)
    moved, written = _moved(fresh, bases)
    return Plan(tuple(directories), tuple(links), (*shared, *moved), written)


def _moved(fresh: Sequence[Entry], bases: Sequence[Manifest]) -> tuple[list[Shared], tuple[Entry, ...]]:
    """Of the files that no base has under their name, those that one has under another, and the rest."""
    sought = {_likeness(entry) for entry in fresh if entry.size}
    found: dict[object, tuple[int, bytes]] = {}
    for number, base in enumerate(bases if sought else ()):
        for entry in base.entries:
            if entry.size and (alike := _likeness(entry)) in sought:
                found.setdefault(alike, (number, entry.path))
    moved: list[Shared] = []
    written: list[Entry] = []
    for entry in fresh:
        origin = found.get(_likeness(entry)) if found else None
        if origin is None:
            written.append(entry)
        else:
            moved.append(Shared(entry, *origin))
    return moved, tuple(written)


def _likeness(entry: Entry) -> tuple[tuple[bytes, ...], int, bool]:
    return entry.chunks, entry.mtime_ns, entry.mode_exec


def places(entries: Iterable[Entry]) -> dict[bytes, list[Place]]:
    """Where each chunk of ``entries`` belongs, in their order."""
    wanted: dict[bytes, list[Place]] = {}
    for entry in entries:
        offset = 0
        for digest, length in zip(entry.chunks, entry.lengths, strict=True):
            wanted.setdefault(digest, []).append((entry, offset))
            offset += length
    return wanted


def sources(bases: Sequence[Manifest], digests: Container[bytes]) -> dict[bytes, Source]:
    """Where those of ``digests`` lie that some base has, in the order in which they lie there."""
    found: dict[bytes, Source] = {}
    for number, base in enumerate(bases):
        for entry in base.entries:
            chunks = entry.chunks
            if len(chunks) == 1:  # most files: there is no need to count
                if chunks[0] in digests and chunks[0] not in found:
                    found[chunks[0]] = Source(number, entry.path, 0, entry.size)
                continue
            offset = 0
            for digest, length in zip(chunks, entry.lengths, strict=True):
                if digest in digests and digest not in found:
                    found[digest] = Source(number, entry.path, offset, length)
                offset += length
    return found
