"""All packs of a store: which chunk lies where, shared by those who read, write and clear away.

Packs are numbered files that only ever grow; a number is never used twice. What this object knows is what counts: a
chunk that is not in it does not exist, whatever bytes a pack still holds.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import attrs
from twisted.logger import Logger

from farmsyncd.edges.content import durable, packindex
from farmsyncd.edges.content.packindex import Place

_PACK = re.compile(r"([0-9]{10})\.pack", re.ASCII)
_KEPT_OPEN = 16


@attrs.define(eq=False)
class OpenPack:
    """A pack open for reading, for as long as anyone holds on to this: removing the pack's file does not disturb it."""

    number: int
    path: Path
    fd: int

    def __del__(self) -> None:
        os.close(self.fd)


class Shelf:
    """The packs in ``directory``, which is made when it is not there. Safe for use by many threads.

    Making one reads all indexes, and walks through packs that were being written when the last process died. Raises
    LocalError when the directory cannot be used.
    """

    log = Logger()

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.places: dict[bytes, Place] = {}
        self._sizes: dict[int, int] = {}  # the complete packs, with their bytes
        self._open: WeakValueDictionary[int, OpenPack] = WeakValueDictionary()
        self._recent: deque[OpenPack] = deque(maxlen=_KEPT_OPEN)
        self._next = 1
        try:
            self._load()
        except OSError as error:
            raise durable.failure(error, "reading the packs in", directory) from error

    @property
    def sizes(self) -> Mapping[int, int]:
        """The complete packs: number to bytes."""
        with self.lock:
            return dict(self._sizes)

    def path(self, pack: int) -> Path:
        """The file of pack number ``pack``."""
        return self.directory / f"{pack:010d}.pack"

    def index_path(self, pack: int) -> Path:
        """The index file of pack number ``pack``."""
        return self.path(pack).with_suffix(".index")

    def take_number(self) -> int:
        """A number for a new pack."""
        with self.lock:
            self._next += 1
            return self._next - 1

    def add(self, pack: int, size: int, places: Mapping[bytes, Place]) -> None:
        """Take in a pack whose bytes are durable already: write its index, then let others see its chunks."""
        packindex.save(self.index_path(pack), size, places)
        with self.lock:
            self._sizes[pack] = size
            self.places.update(places)

    def open(self, pack: int) -> OpenPack:
        """The pack, open. Raises LocalError when its file cannot be read."""
        with self.lock:
            found = self._open.get(pack)
            if found is None:
                path = self.path(pack)
                try:
                    found = OpenPack(pack, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                except OSError as error:
                    raise durable.failure(error, "opening", path) from error
                self._open[pack] = found
                self._recent.append(found)
            return found

    def of_pack(self, pack: int) -> dict[bytes, Place]:
        """The chunks of one pack."""
        with self.lock:
            return {digest: at for digest, at in self.places.items() if at.pack == pack}

    def forget(self, digest: bytes, place: Place) -> None:
        """Drop a damaged chunk, for good, so that it is missing and the next who has it brings it again."""
        with self.lock:
            if self.places.get(digest) != place:
                return
            del self.places[digest]
            left = self.of_pack(place.pack)
            packindex.save(self.index_path(place.pack), self._sizes[place.pack], left)

    def remove(self, packs: Iterable[int]) -> None:
        """Remove packs, with those of their chunks that lie nowhere else. Who has one open may go on reading it."""
        with self.lock:
            gone = set(packs) & self._sizes.keys()
            self.places = {digest: at for digest, at in self.places.items() if at.pack not in gone}
            for pack in gone:
                del self._sizes[pack]
                self._open.pop(pack, None)
                # The pack goes first: a lone index is swept up at the next start, a lone pack would be taken in again.
                self.path(pack).unlink(missing_ok=True)
                self.index_path(pack).unlink(missing_ok=True)
            for held in [held for held in self._recent if held.number in gone]:
                self._recent.remove(held)
            if gone:
                durable.sync_directory(self.directory)

    def _load(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        durable.sync_directory(self.directory.parent)
        packs = {int(found[1]) for path in self.directory.iterdir() if (found := _PACK.fullmatch(path.name))}
        for path in self.directory.iterdir():
            pack = int(path.stem) if path.suffix == ".index" and path.stem.isdecimal() else None
            if path.suffix == durable.UNFINISHED or (pack is not None and pack not in packs):
                path.unlink()
        for pack in sorted(packs):
            size = self.path(pack).stat().st_size
            places = packindex.load(self.index_path(pack), pack, size)
            if places is None:
                self._rescue(pack, size)
            else:
                self._sizes[pack] = size
                self.places.update(places)
        self._next = max(packs, default=0) + 1

    def _rescue(self, pack: int, size: int) -> None:
        path = self.path(pack)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            places, end, damaged = packindex.rebuild(fd, pack)
            os.ftruncate(fd, end)
            os.fsync(fd)
        finally:
            os.close(fd)
        for fault in damaged:
            self.log.warn("pack {pack}: {fault}; it is forgotten", pack=path, fault=fault)
        self.log.info(
            "pack {pack} was not complete: kept {chunks} chunks, cut {torn} bytes off its end",
            pack=path, chunks=len(places), torn=size - end,
        )  # fmt: skip
        if places:
            self.add(pack, end, places)
        else:
            path.unlink()
            self.index_path(pack).unlink(missing_ok=True)
