"""Chunks: packed where it pays, verified when unpacked, framed as the protocol has them."""

from __future__ import annotations

import contextlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import wire
from farmsyncd.core.chunkframes import MAX_HEAD, frame_head, read_head
from farmsyncd.core.chunks import Damaged, Packer, Unpacker, digest_of
from farmsyncd.core.messages.content import Chunk

PACKER = Packer()
UNPACKER = Unpacker()


@given(st.one_of(st.binary(min_size=1, max_size=2000), st.binary(min_size=1, max_size=9).map(lambda data: data * 5000)))
def test_what_is_packed_is_unpacked_as_it_was(data: bytes) -> None:
    codec, packed = PACKER.pack(data)
    assert UNPACKER.unpack(digest_of(data), codec, len(data), packed) == data
    assert len(packed) <= len(data)


def test_one_packer_and_one_unpacker_serve_many_threads() -> None:
    pieces = [b"%d" % number * 3000 for number in range(300)]

    def around(piece: bytes) -> bool:
        codec, packed = PACKER.pack(piece)
        return UNPACKER.unpack(digest_of(piece), codec, len(piece), packed) == piece

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(around, pieces))


def test_what_does_not_shrink_stays_raw_and_uncopied() -> None:
    for size in (10, 5_000, 1_000_000):
        noise = random.Random(1).randbytes(size)
        assert PACKER.pack(noise)[0] == "raw"
        assert PACKER.pack(noise)[1] is noise


def test_text_is_packed() -> None:
    codec, packed = PACKER.pack(b"price: 9.99\n" * 1000)
    assert codec == "zstd"
    assert len(packed) < 200


@given(st.binary(min_size=80, max_size=300), st.data())
def test_a_changed_byte_is_damage(data: bytes, draw: st.DataObject) -> None:
    codec, packed = PACKER.pack(data * 3)
    changed = bytearray(packed)
    changed[draw.draw(st.integers(0, len(changed) - 1))] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(Damaged):  # zstd's frames have bits that mean nothing
        assert UNPACKER.unpack(digest_of(data * 3), codec, len(data) * 3, changed) == data * 3


@pytest.mark.parametrize("length", [0, -1, 99, 101, 5 << 20])
def test_a_length_that_lies_is_damage(length: int) -> None:
    data = b"x" * 100
    for codec, packed in (("raw", data), ("zstd", zstandard.compress(data))):
        with pytest.raises(Damaged, match="expected"):
            UNPACKER.unpack(digest_of(data), codec, length, packed)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.compress(bytes(1 << 26))
    with pytest.raises(Damaged, match="claims"):
        UNPACKER.unpack(bytes(32), "zstd", 4 << 20, bomb)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    with pytest.raises(Damaged):
        UNPACKER.unpack(digest_of(b"x" * 100), "zstd", 100, unsized)


def test_bytes_after_the_packed_ones_are_damage() -> None:
    with pytest.raises(Damaged):
        UNPACKER.unpack(digest_of(b"x" * 100), "zstd", 100, zstandard.compress(b"x" * 100) + b"more")


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["raw", "zstd"]), st.integers(1, 4 << 20))
def test_frames_are_exactly_the_messages(packed: bytes, codec: str, length: int) -> None:
    digest = digest_of(packed)
    frame = frame_head(digest, codec, length, len(packed)) + packed + b","
    assert frame == wire.encode(Chunk(digest, codec, length, packed).frame())
    head = read_head(frame[:MAX_HEAD])
    assert head is not None
    assert (head.digest, head.codec, head.length, head.size) == (digest, codec, length, len(packed))
    assert frame[head.body : head.body + head.size] == packed
    assert head.frame_length == len(frame)


@given(st.binary(max_size=120))
def test_what_is_no_frame_has_no_head(garbage: bytes) -> None:
    assert read_head(garbage) is None
