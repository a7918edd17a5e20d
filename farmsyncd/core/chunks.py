"""One chunk: its name, and how it is packed to be stored and sent.

A chunk is named by the BLAKE3 digest of its bytes. It is kept and sent packed by zstd where that pays, raw where it
does not; the same packed bytes lie in a pack and travel in a CHUNK message.
"""

from __future__ import annotations

import threading
from typing import Final, TypeAlias

import blake3
import zstandard

from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.errors import LocalError

Buffer: TypeAlias = bytes | bytearray | memoryview
DIGEST_SIZE: Final = 32
LEVEL: Final = 3
_SAMPLE: Final = 64 * 1024
_TOO_SHORT: Final = 64


class Damaged(LocalError):
    """Bytes are not what their name says; ``digest`` is that name."""

    def __init__(self, digest: bytes, found: str) -> None:
        super().__init__(f"chunk {digest.hex()[:16]} is damaged: {found}")
        self.digest = digest


def digest_of(data: Buffer) -> bytes:
    """The name of the chunk ``data``: 32 bytes."""
    return blake3.blake3(data).digest()


class _Contexts(threading.local):
    """zstd's contexts, one of each for every thread: two threads in one of them end the process."""

    def __init__(self, level: int = LEVEL) -> None:
        self.compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


class Packer:
    """Packs chunks. Safe for use by many threads."""

    def __init__(self, level: int = LEVEL) -> None:
        self._zstd = _Contexts(level)

    def pack(self, data: Buffer) -> tuple[str, Buffer]:
        """The codec and the packed bytes of ``data``; ``data`` itself, uncopied, where packing gains less than 5 %."""
        view = memoryview(data)
        if len(view) < _TOO_SHORT:
            return "raw", data
        compress = self._zstd.compressor.compress
        if len(view) > 2 * _SAMPLE:
            middle = len(view) // 2
            if not _pays(len(compress(view[middle : middle + _SAMPLE])), _SAMPLE):
                return "raw", data
        packed = compress(view)
        return ("zstd", packed) if _pays(len(packed), len(view)) else ("raw", data)


class Unpacker:
    """Unpacks and verifies chunks. Safe for use by many threads."""

    def __init__(self) -> None:
        self._zstd = _Contexts()

    def unpack(self, digest: bytes, codec: str, length: int, packed: Buffer) -> bytes | memoryview:
        """The ``length`` bytes of the chunk ``digest``. Raises Damaged when they cannot be had from ``packed``."""
        view = memoryview(packed)
        if not 0 < length <= MAX_CHUNK:
            raise Damaged(digest, f"expected a length of 1 to {MAX_CHUNK}, and found {length}")
        data = view if codec == "raw" else self._unzstd(digest, length, view)
        if len(data) != length:
            raise Damaged(digest, f"expected {length} bytes, and found {len(data)}")
        if digest_of(data) != digest:
            raise Damaged(digest, "the bytes are others than were published")
        return data

    def _unzstd(self, digest: bytes, length: int, packed: memoryview) -> bytes:
        try:
            # The size that a frame claims is what would be allocated: it is looked at before anything is unpacked.
            if zstandard.frame_content_size(packed) != length:
                raise Damaged(digest, f"expected {length} bytes, and its frame claims another number")
            return self._zstd.decompressor.decompress(packed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Damaged(digest, f"zstd cannot unpack it ({error})") from None


def _pays(packed: int, length: int) -> bool:
    return packed < length - length // 20
