"""The pointer in a small file that the node and all readers of the machine map into their memory.

Layout, in one page: the sequence number of the newest record (8 bytes, only a hint that something changed), then two
slots, one record each (``core.pointer``). The writer fills the slot that is not the newest and changes the hint last;
a reader looks at the hint, and reads the slots only when it changed.

The file needs no fsync: it survives the writer's death in the page cache, and after the machine's death it is not
believed, since it names another boot.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path

from farmsyncd.core.pointer import BOOT_ID_BYTES, RECORD_BYTES, Pointer, Record, encode, newest

FILE_BYTES = 4096
HINT_BYTES = 8
SLOTS = (256, 512)
_HINT = struct.Struct("<Q")
_NEVER = b""  # equals no hint


def boot_id() -> bytes:
    """Which run of CLOCK_MONOTONIC_RAW this process reads: that of this boot, in this time namespace (16 bytes)."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    try:
        namespace = os.fsencode(Path("/proc/self/ns/time").readlink())
    except OSError:  # a kernel without time namespaces: all processes read the same clock
        namespace = b""
    return hashlib.blake2b(
        boot.strip() + b"\n" + namespace, digest_size=BOOT_ID_BYTES, person=b"farmsync boot"
    ).digest()


class PointerFile:
    """The writer's side; one per file at a time, which the lock on the node's state directory sees to.

    Creates the file when it is not there. What an earlier writer left stands until the next :meth:`write`.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # Real blocks: a hole in a mapped file is a SIGBUS on the day on which the disk is full.
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
            self._map = mmap.mmap(descriptor, FILE_BYTES)
        finally:
            os.close(descriptor)
        self._slot = 1
        self._record: Record | None = None
        if (found := newest(_slots(self._map))) is not None:
            self._slot, self._record = found

    def read(self) -> Pointer | None:
        """What was written last, by this or an earlier writer; None when that was nothing whole."""
        return None if self._record is None else self._record.pointer

    def write(self, pointer: Pointer) -> None:
        """Make ``pointer`` what every reader finds from now on."""
        hint = _HINT.unpack_from(self._map)[0]
        sequence = max(hint, 0 if self._record is None else self._record.sequence) + 1
        record = Record(sequence, pointer)
        slot = 1 - self._slot
        self._map[SLOTS[slot] : SLOTS[slot] + RECORD_BYTES] = encode(record)
        self._map[:HINT_BYTES] = _HINT.pack(sequence)
        self._slot, self._record = slot, record

    def close(self) -> None:
        """Let go of the file; what it says stands."""
        self._map.close()


class PointerReader:
    """The readers' side. Raises FileNotFoundError when there is no pointer file, ValueError when it is none.

    :meth:`read` looks at eight bytes of memory as long as nothing changed. A caller that wants to do so itself compares
    the first bytes of ``mapped`` with ``seen``.
    """

    __slots__ = ("_identity", "_map", "_path", "_pointer", "_seen")

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if found.st_size < FILE_BYTES:
                raise ValueError(f"expected a pointer file of {FILE_BYTES} bytes, found {found.st_size} in {path}")
            self._map = mmap.mmap(descriptor, FILE_BYTES, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        self._path = path
        self._identity = found.st_dev, found.st_ino
        self._seen = _NEVER
        self._pointer: Pointer | None = None

    @property
    def mapped(self) -> mmap.mmap:
        """The mapped file; its first HINT_BYTES bytes change with every writing."""
        return self._map

    @property
    def seen(self) -> bytes:
        """The hint that stood when the pointer was last read; equal to no hint when it must be read again anyway."""
        return self._seen

    def read(self) -> Pointer | None:
        """The newest pointer; None when nothing whole was written yet."""
        return self._pointer if self._map[:HINT_BYTES] == self._seen else self.read_again()

    def read_again(self) -> Pointer | None:
        """The newest pointer, whatever the hint says: a writer may have died before he could change it."""
        hint = self._map[:HINT_BYTES]  # before the slots: what changes later is then seen as a change
        found = newest(_slots(self._map))
        if found is None:
            self._pointer, self._seen = None, _NEVER
        else:
            # A hint that is ahead of the slots was seen through a gap in another processor's writes: look again soon.
            self._pointer = found[1].pointer
            self._seen = hint if _HINT.unpack(hint)[0] <= found[1].sequence else _NEVER
        return self._pointer

    def replaced(self) -> bool:
        """Whether the path names another file by now, or none: somebody made the node's state anew."""
        try:
            found = self._path.stat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity


def _slots(mapped: mmap.mmap) -> list[bytes]:
    return [mapped[at : at + RECORD_BYTES] for at in SLOTS]
