"""One immutable version of a dataset: its manifest, its name, and what differs between two.

A manifest lists a tree's directories, files and links in the order of their paths' bytes, each file with its chunks.
It has exactly one encoding (MessagePack, arrays, shortest integers), and the version's name is the first 20 bytes of
that encoding's BLAKE3 digest in hexadecimal: equal trees have equal names.

A manifest that could touch anything outside its tree cannot be made: the constructor refuses it, whether it was read
from a directory, a disk or a peer. :mod:`farmsyncd.core.entries` holds the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Final

import attrs
import blake3
import msgspec
import zstandard

from farmsyncd.core import cutting as cuts
from farmsyncd.core.cutting import Cutting
from farmsyncd.core.entries import Entry, Kind, tree_fault
from farmsyncd.errors import PeerError

FORMAT: Final = "farmsync-manifest-1"
MAX_ENCODED: Final = 512 * 1024 * 1024
"""Bytes of an encoded manifest at most: a few million entries."""
PIECE: Final = 1024 * 1024
"""Bytes of each piece of a packed manifest but the last, at least; it grows so that there are never too many."""
_MAX_PIECES: Final = 60


class ManifestError(PeerError):
    """What came as a manifest is none, or describes a tree that must not be written."""


class _Encoded(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: str
    cutting: Cutting
    entries: tuple[Entry, ...]


@attrs.frozen
class Manifest:
    """One version: ``entries`` sorted by path, and how its large files were cut.

    Raises ManifestError when the entries are no tree that could be written safely.
    """

    entries: tuple[Entry, ...] = attrs.field(repr=lambda entries: f"<{len(entries)}>")
    cutting: Cutting = cuts.DEFAULT

    def __attrs_post_init__(self) -> None:
        fault = tree_fault(self.entries, self.cutting)
        if fault is not None:
            raise ManifestError(fault)

    @classmethod
    def of(cls, entries: Iterable[Entry], cutting: Cutting = cuts.DEFAULT) -> Manifest:
        """The manifest of ``entries``, whatever their order."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)), cutting)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical encoding."""
        return _ENCODER.encode(_Encoded(FORMAT, self.cutting, self.entries))

    @cached_property
    def version(self) -> str:
        """The version's name: 40 hexadecimal digits."""
        return version_of(self.encoded)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def _distinct(self) -> dict[bytes, int]:
        distinct: dict[bytes, int] = {}
        for entry in self.entries:
            for digest, length in zip(entry.chunks, entry.lengths, strict=True):
                distinct.setdefault(digest, length)
        return distinct

    def distinct_chunks(self) -> list[tuple[bytes, int]]:
        """Each chunk once, with its length, in the order of first use: chunk number n of this version is item n."""
        return list(self._distinct.items())

    def encode(self) -> bytes:
        """The canonical encoding, as bytes to keep; :func:`decode` reads it."""
        return self.encoded


def version_of(encoded: bytes) -> str:
    """The name of the version of which ``encoded`` is the canonical encoding."""
    return blake3.blake3(encoded).digest(20).hex()


def decode(encoded: bytes, version: str | None = None) -> Manifest:
    """Read a canonical encoding, which must be that of ``version`` if one is given. Raises ManifestError."""
    if len(encoded) > MAX_ENCODED:
        raise ManifestError(f"expected a manifest of at most {MAX_ENCODED} bytes, and it has {len(encoded)}")
    found = version_of(encoded)
    if version is not None and found != version:
        raise ManifestError(f"expected the manifest of version {version}, and that of {found} came")
    try:
        read = _DECODER.decode(encoded)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ManifestError(f"expected an encoded manifest, and found other bytes ({error})") from None
    if read.format != FORMAT:
        raise ManifestError(f"expected a manifest in the format {FORMAT}, and found {read.format[:40]!r}")
    manifest = Manifest(read.entries, read.cutting)
    if manifest.encoded != encoded:
        raise ManifestError("expected the one canonical encoding of a manifest, and found another")
    return manifest


def encode_pieces(manifest: Manifest) -> list[bytes]:
    """The encoding compressed by zstd, in pieces to travel as netstrings."""
    packed = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(manifest.encoded)
    size = max(PIECE, -(-len(packed) // _MAX_PIECES))
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def decode_pieces(pieces: Iterable[bytes], version: str | None = None) -> Manifest:
    """What :func:`encode_pieces` made of a manifest, read strictly. Raises ManifestError."""
    packed = b"".join(pieces)
    try:
        # A size that is not known is -1, and a size that is claimed is allocated: both are looked at first.
        if not 0 <= zstandard.frame_content_size(packed) <= MAX_ENCODED:
            raise ManifestError(f"expected a manifest of at most {MAX_ENCODED} bytes, and it claims more or nothing")
        encoded = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ManifestError(f"expected a manifest packed by zstd, and found other bytes ({error})") from None
    return decode(encoded, version)


@attrs.frozen
class Difference:
    """What leads from one manifest to another; ``changed`` has pairs (old, new) of one path."""

    added: tuple[Entry, ...]
    changed: tuple[tuple[Entry, Entry], ...]
    removed: tuple[Entry, ...]

    @property
    def empty(self) -> bool:
        """Whether both trees are the same."""
        return not (self.added or self.changed or self.removed)


def difference(old: Manifest, new: Manifest) -> Difference:
    """What must be added, changed and removed to make ``old``'s tree that of ``new``."""
    before = {entry.path: entry for entry in old.entries}
    added: list[Entry] = []
    changed: list[tuple[Entry, Entry]] = []
    for entry in new.entries:
        was = before.pop(entry.path, None)
        if was is None:
            added.append(entry)
        elif was != entry:
            changed.append((was, entry))
    return Difference(tuple(added), tuple(changed), tuple(before.values()))


__all__ = [
    "Difference", "Entry", "Kind", "Manifest", "ManifestError",
    "decode", "decode_pieces", "difference", "encode_pieces", "version_of",
]  # fmt: skip

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Encoded)
