"""Cutting: the same bytes are cut in the same places, however they are read and whatever stands before them."""

from __future__ import annotations

import random
from pathlib import Path

import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.cutting import DEFAULT, MAX_CHUNK, Cutter, Cutting
from farmsyncd.edges.content.filereading import FileReader

SMALL = Cutting(minimum=256, average=1024, maximum=4096, whole=1024)


def cut(data: bytes, windows: list[int], cutting: Cutting = SMALL) -> list[int]:
    """The lengths of all chunks of ``data``, read in windows of at least these sizes and the rest at once."""
    cutter = Cutter(cutting)
    lengths: list[int] = []
    at = end = 0
    for window in windows:
        end = min(len(data), max(end, at + cutting.maximum) + window)
        for length in cutter.cut(memoryview(data)[at:end], False):
            lengths.append(length)
            at += length
    return lengths + cutter.cut(memoryview(data)[at:], True)


@settings(max_examples=30)
@given(st.integers(0, 60_000), st.integers(0, 9), st.lists(st.integers(0, 20_000), max_size=8))
def test_cuts_do_not_depend_on_how_a_file_is_read(size: int, seed: int, windows: list[int]) -> None:
    data = random.Random(seed).randbytes(size)
    lengths = cut(data, windows)
    assert lengths == cut(data, [])
    assert sum(lengths) == size
    assert all(SMALL.minimum <= length <= SMALL.maximum for length in lengths[:-1])


@settings(max_examples=30)
@given(st.integers(0, 100_000), st.binary(min_size=1, max_size=1000), st.integers(0, 9))
def test_an_insertion_changes_the_chunks_around_it_and_no_more(where: int, inserted: bytes, seed: int) -> None:
    old = random.Random(seed).randbytes(100_000)
    new = old[:where] + inserted + old[where:]
    assert len(pieces(new) - pieces(old)) <= 25
    assert len(pieces(old)) > 50


def pieces(data: bytes) -> set[bytes]:
    """The digests of the chunks of ``data``."""
    digests, at = set(), 0
    for length in cut(data, []):
        digests.add(digest_of(data[at : at + length]))
        at += length
    return digests


def test_runs_of_one_byte_are_cut_too() -> None:
    assert cut(bytes(10_000), []) == [4096, 4096, 1808]


def test_a_large_file_is_read_in_windows_as_it_would_be_whole(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(20 * 1024 * 1024 + 17)
    path = tmp_path / "large"
    path.write_bytes(data)
    read = FileReader(DEFAULT).read(bytes(path))
    assert list(read.lengths) == cut(data, [], DEFAULT)
    assert max(read.lengths) <= MAX_CHUNK
    at = 0
    for digest, length in zip(read.chunks, read.lengths, strict=True):
        assert digest == digest_of(data[at : at + length])
        at += length


def test_the_cuts_of_known_bytes_never_change() -> None:
    """They are part of the format: other cuts would make every large file new."""
    data = blake3.blake3(b"farmsync").digest(12_000)
    assert cut(data, []) == [759, 1670, 505, 1259, 1352, 1486, 403, 1739, 2311, 516]
