"""A delta: what leads from one version to the next, in parts that travel as they are.

Someone who has the old version, its manifest included, needs the new manifest and those new chunks that the old one
lacks. A delta carries both as differences: first the new manifest, packed by zstd with the old one as prefix
(:class:`ManifestPart`, in as many pieces as it takes), then :class:`Bundle` after bundle of new chunks, packed with
old chunks as prefix. What a delta leaves out is asked for as chunks.

Nothing in a part is believed. Numbers are checked against the two manifests and sizes before anything is unpacked; and
a chunk is good when its digest is, whatever it was made from: a damaged old file can only make chunks that are refused.

Parts are MessagePack arrays, the kind of part first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import attrs
import msgspec
import zstandard

from farmsyncd.core.chunks import Buffer
from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.snapshot import MAX_ENCODED, Manifest, decode
from farmsyncd.errors import PeerError

FORMAT: Final = "farmsync-delta-1"
PIECE: Final = 1024 * 1024
"""Bytes of a manifest's difference in one part at most."""
MAX_NEW: Final = MAX_CHUNK
"""Bytes of new chunks in one bundle at most, so that a part stays below a netstring's limit even when nothing packs."""
MAX_OLD: Final = 16 * 1024 * 1024
"""Bytes of old chunks that serve one bundle as prefix, at most."""
_MAX_PART: Final = MAX_CHUNK + 1024 * 1024
_LEVEL: Final = 9
_MAX_WINDOW_LOG: Final = 30
_MAX_TABLE_LOG: Final = 24


class DeltaError(PeerError):
    """What came as a part of a delta is none, or does not fit the two versions."""


class ManifestPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="manifest"):
    """A piece of the new manifest's difference; ``after`` it, as many more are to come.

    ``length`` is that of the new manifest's encoding.
    """

    format: str
    old: str
    new: str
    length: int
    after: int
    data: bytes


class Bundle(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="bundle"):
    """New chunks, by their numbers in the new manifest, packed with old chunks, by theirs in the old one, as prefix."""

    chunks: tuple[int, ...]
    prefix: tuple[int, ...]
    data: bytes


Part: TypeAlias = ManifestPart | Bundle
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Part]] = msgspec.msgpack.Decoder(ManifestPart | Bundle)


def encode_part(part: Part) -> bytes:
    """The bytes of a part, as they travel in DELTA."""
    return _ENCODER.encode(part)


def read_part(data: bytes) -> Part:
    """The part that ``data`` encodes. Raises DeltaError."""
    if len(data) > _MAX_PART:
        raise DeltaError(f"expected a part of a delta of at most {_MAX_PART} bytes, and it has {len(data)}")
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DeltaError(f"expected a part of a delta, and found other bytes ({error})") from None


def manifest_parts(old: Manifest, new: Manifest) -> list[ManifestPart]:
    """The new manifest as a difference to the old one."""
    packed = pack(new.encoded, old.encoded)
    pieces = [packed[at : at + PIECE] for at in range(0, len(packed), PIECE)]
    return [
        ManifestPart(FORMAT, old.version, new.version, len(new.encoded), len(pieces) - 1 - number, piece)
        for number, piece in enumerate(pieces)
    ]


@attrs.define
class ManifestReader:
    """Puts the manifest of version ``new`` together again from its difference to ``old``."""

    old: Manifest
    new: str
    _pieces: list[ManifestPart] = attrs.Factory(list)

    def add(self, part: ManifestPart) -> Manifest | None:
        """Take the next piece: the manifest when it was the last one, else None. Raises DeltaError."""
        if part.format != FORMAT:
            raise DeltaError(f"expected a delta in the format {FORMAT}, and found {part.format[:40]!r}")
        if (part.old, part.new) != (self.old.version, self.new):
            raise DeltaError(
                f"expected the step from {self.old.version} to {self.new}, and found that from "
                f"{part.old[:40]!r} to {part.new[:40]!r}"
            )
        if not 0 < part.length <= MAX_ENCODED or part.after < 0:
            raise DeltaError(f"expected a manifest of at most {MAX_ENCODED} bytes, and {part.length} are announced")
        if self._pieces and (part.length, part.after) != (self._pieces[-1].length, self._pieces[-1].after - 1):
            raise DeltaError("expected the next piece of the manifest's difference, and found another")
        if (len(self._pieces) + 1) * PIECE > MAX_ENCODED:
            raise DeltaError(f"expected a manifest of at most {MAX_ENCODED} bytes, and its difference has more")
        self._pieces.append(part)
        if part.after:
            return None
        packed = b"".join(piece.data for piece in self._pieces)
        self._pieces.clear()
        return decode(unpack(packed, self.old.encoded, part.length), self.new)


def check_bundle(bundle: Bundle, old: Sequence[tuple[bytes, int]], new: Sequence[tuple[bytes, int]]) -> int:
    """The bytes of the new chunks in ``bundle``, whose numbers are looked up in both versions' distinct chunks.

    Raises DeltaError when a number is out of range or there is more than a bundle may hold.
    """
    length = _total(bundle.chunks, new, MAX_NEW, "new")
    if not length:
        raise DeltaError("expected new chunks in a bundle, and found none")
    _total(bundle.prefix, old, MAX_OLD, "old")
    return length


def _total(numbers: Iterable[int], chunks: Sequence[tuple[bytes, int]], most: int, what: str) -> int:
    total = 0
    for number in numbers:
        if not 0 <= number < len(chunks):
            raise DeltaError(f"expected numbers below {len(chunks)} of {what} chunks, and found {number}")
        total += chunks[number][1]
        if total > most:
            raise DeltaError(f"expected at most {most} bytes of {what} chunks in a bundle, and there are more")
    return total


def pack(data: Buffer, prefix: Buffer) -> bytes:
    """``data`` as a difference to ``prefix``."""
    window = _window_log(len(data) + len(prefix))
    table = min(window - 1, _MAX_TABLE_LOG)  # by default too small to remember all of a prefix of some megabytes
    params = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=window, hash_log=table, chain_log=table, enable_ldm=True, write_content_size=True
    )
    known = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    return zstandard.ZstdCompressor(compression_params=params, dict_data=known).compress(data)


def unpack(packed: Buffer, prefix: Buffer, length: int) -> bytes:
    """What :func:`pack` made of ``length`` bytes. Raises DeltaError when it makes more or less, or nothing."""
    try:
        # The size that a frame claims is what would be allocated: it is looked at before anything is unpacked.
        claimed = zstandard.frame_content_size(packed)
        if claimed != length:
            raise DeltaError(f"expected a difference that makes {length} bytes, and found one of {claimed}")
        known = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
        window = 1 << _window_log(length + len(prefix))
        unpacker = zstandard.ZstdDecompressor(dict_data=known, max_window_size=window)
        return unpacker.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DeltaError(f"zstd cannot unpack a difference ({error})") from None


def _window_log(size: int) -> int:
    return min(max(size.bit_length(), 10), _MAX_WINDOW_LOG)


def slices(data: bytes, lengths: Iterable[int]) -> Iterable[memoryview]:
    """``data`` cut into pieces of ``lengths``, uncopied."""
    view, at = memoryview(data), 0
    for length in lengths:
        yield view[at : at + length]
        at += length
