"""What a reader of a node's cache decides by: the active version, the next one, and the instant between them.

A node writes the record *before* the activation time, and each reader compares the machine's clock with it, so that
all readers of a machine flip together, whether or not any timer or process woke in time.

A record has a fixed size, a sequence number and a checksum. It is kept twice, written in turns: a writer that dies in
the middle spoils the older of the two, and :func:`newest` finds the other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import attrs

from farmsyncd.core import words

_BODY = struct.Struct("<4sB3xQ20sq20sqq16s")
_CHECKSUM_BYTES = 16
_MAGIC = b"FSP1"
_ACTIVE, _NEXT = 1, 2
_NO_VERSION = bytes(20)

RECORD_BYTES = _BODY.size + _CHECKSUM_BYTES
BOOT_ID_BYTES = 16


@attrs.frozen
class Pointer:
    """A dataset on one machine, as its readers need to know it.

    Versions are 40 hexadecimal digits, or None where there is none. ``flips_at_machine_ns`` is the real
    CLOCK_MONOTONIC_RAW of the machine at which the next version becomes the active one. ``boot_id`` (16 bytes) names
    the run of that clock: a pointer of another boot says nothing about now. Raises ValueError when the fields do not
    fit together.
    """

    active_version: str | None
    active_cycle: int | None
    next_version: str | None
    next_cycle: int | None
    flips_at_machine_ns: int | None
    boot_id: bytes

    def __attrs_post_init__(self) -> None:
        if (self.active_version is None) != (self.active_cycle is None):
            raise ValueError("expected an active version with its cycle, or neither")
        if len({self.next_version is None, self.next_cycle is None, self.flips_at_machine_ns is None}) > 1:
            raise ValueError("expected a next version with its cycle and its time, or none of them")
        for version in (self.active_version, self.next_version):
            if version is not None and not words.is_version(version):
                raise ValueError(f"expected a version (40 hexadecimal digits), found {version!r}")
        if len(self.boot_id) != BOOT_ID_BYTES:
            raise ValueError(f"expected a boot id of {BOOT_ID_BYTES} bytes, found {len(self.boot_id)}")

    def flipped(self, machine_ns: int) -> bool:
        """Whether the next version has become the active one at ``machine_ns``."""
        return self.flips_at_machine_ns is not None and machine_ns >= self.flips_at_machine_ns

    def current(self, machine_ns: int) -> str | None:
        """The version to serve at ``machine_ns``; None while there is none."""
        return self.next_version if self.flipped(machine_ns) else self.active_version

    def current_cycle(self, machine_ns: int) -> int | None:
        """The cycle of :meth:`current`."""
        return self.next_cycle if self.flipped(machine_ns) else self.active_cycle

    def after_flip(self) -> Pointer:
        """The same once the flip lies behind: what came next is active, and nothing comes next."""
        if self.next_version is None:
            return self
        return Pointer(self.next_version, self.next_cycle, None, None, None, self.boot_id)

    def without_next(self) -> Pointer:
        """The same with nothing to come: the next cycle was cancelled, or is to be announced anew."""
        return attrs.evolve(self, next_version=None, next_cycle=None, flips_at_machine_ns=None)


@attrs.frozen
class Record:
    """A pointer with the number of its writing; of two whole records the higher number is the newer."""

    sequence: int
    pointer: Pointer


def encode(record: Record) -> bytes:
    """``record`` in RECORD_BYTES bytes. Raises ValueError for a number that does not fit."""
    pointer = record.pointer
    flags = (_ACTIVE if pointer.active_version is not None else 0) | (_NEXT if pointer.next_version is not None else 0)
    try:
        body = _BODY.pack(
            _MAGIC,
            flags,
            record.sequence,
            _digits(pointer.active_version),
            pointer.active_cycle or 0,
            _digits(pointer.next_version),
            pointer.next_cycle or 0,
            pointer.flips_at_machine_ns or 0,
            pointer.boot_id,
        )
    except struct.error as error:
        raise ValueError(f"expected numbers of 64 bits: {error}") from None
    return body + _checksum(body)


def decode(data: bytes) -> Record | None:
    """The record in ``data``; None when it is torn, empty or nothing that :func:`encode` wrote."""
    if len(data) != RECORD_BYTES:
        return None
    body = data[: _BODY.size]
    if data[_BODY.size :] != _checksum(body):
        return None
    magic, flags, sequence, active, active_cycle, following, next_cycle, flips_at, boot_id = _BODY.unpack(body)
    if magic != _MAGIC:
        return None
    has_active, has_next = bool(flags & _ACTIVE), bool(flags & _NEXT)
    pointer = Pointer(
        active.hex() if has_active else None,
        active_cycle if has_active else None,
        following.hex() if has_next else None,
        next_cycle if has_next else None,
        flips_at if has_next else None,
        boot_id,
    )
    return Record(sequence, pointer)


def newest(slots: Sequence[bytes]) -> tuple[int, Record] | None:
    """The newest whole record among ``slots`` with its index there; None when no slot holds a whole one."""
    best: tuple[int, Record] | None = None
    for index, data in enumerate(slots):
        record = decode(data)
        if record is not None and (best is None or record.sequence > best[1].sequence):
            best = index, record
    return best


def _digits(version: str | None) -> bytes:
    return _NO_VERSION if version is None else bytes.fromhex(version)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, person=b"farmsync pointer").digest()
