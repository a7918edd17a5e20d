"""Manifests: one encoding, one name for equal trees, and no tree that could reach outside of itself."""

from __future__ import annotations

import contextlib
from random import Random

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import words
from farmsyncd.core.cutting import Cutting
from farmsyncd.core.snapshot import (
    Entry,
    Kind,
    Manifest,
    ManifestError,
    decode,
    decode_pieces,
    difference,
    encode_pieces,
    version_of,
)
from tests.trees import file_entry, manifests

D = Kind.DIR
F = Kind.FILE
L = Kind.LINK


@given(manifests())
def test_a_manifest_is_read_back_as_it_was(manifest: Manifest) -> None:
    assert decode(manifest.encode(), manifest.version) == manifest
    assert decode_pieces(encode_pieces(manifest), manifest.version) == manifest


@given(manifests(), st.randoms(use_true_random=False))
def test_equal_trees_have_equal_names(manifest: Manifest, random: Random) -> None:
    entries = list(manifest.entries)
    random.shuffle(entries)
    assert Manifest.of(entries).version == manifest.version
    assert words.is_version(manifest.version)


@given(manifests(), manifests())
def test_different_trees_have_different_names(one: Manifest, other: Manifest) -> None:
    assert (one.version == other.version) == (one == other)


def test_the_cutting_is_part_of_the_name() -> None:
    assert Manifest((), Cutting()).version != Manifest((), Cutting(average=512 * 1024)).version


def test_the_name_of_a_known_tree_never_changes() -> None:
    tree = Manifest.of(
        [
            Entry(b"d", D),
            file_entry(b"d/f", b"hello", mtime_ns=1_700_000_000_123_456_789),
            Entry(b"l", L, target=b"d/f"),
        ]
    )
    assert tree.version == "70faeef3efe671220c958d605723494288b6ffef"


@given(manifests(), st.data())
def test_a_changed_byte_never_passes(manifest: Manifest, data: st.DataObject) -> None:
    encoded = bytearray(manifest.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ManifestError):
        decode(bytes(encoded), manifest.version)
    with contextlib.suppress(ManifestError):
        assert decode(bytes(encoded)).encode() == encoded


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ManifestError):
        decode(garbage)
    with pytest.raises(ManifestError):
        decode_pieces([garbage])


@pytest.mark.parametrize(
    "path",
    [b"", b".", b"..", b"/a", b"a/", b"a//b", b"a/../b", b"../a", b"a/.", b"a\0b", b"x" * 256, b"d/" * 2000 + b"e"],
)
def test_a_path_that_could_leave_the_tree_is_refused(path: bytes) -> None:
    parents = [Entry(path[:at], D) for at, byte in enumerate(path) if byte == 47 and at]
    with pytest.raises(ManifestError):
        Manifest.of([*parents, Entry(path, D)])


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(b"a", D), Entry(b"a", D)],
        [file_entry(b"a", b"1"), Entry(b"a", D)],
        [Entry(b"a/b", D)],
        [file_entry(b"a", b"1"), file_entry(b"a/b", b"1")],
        [Entry(b"a", L, target=b"b"), file_entry(b"a/b", b"1")],
        [Entry(b"a", D), Entry(b"a/b", L, target=b"c"), Entry(b"a/b/c", D)],
        [Entry(b"a", D, mtime_ns=1)],
        [Entry(b"a", D, target=b"b")],
        [Entry(b"a", L, target=b"b", size=1)],
        [Entry(b"a", F, target=b"b")],
        [Entry(b"a", F, size=1)],
        [Entry(b"a", F, chunks=(b"x" * 32,), lengths=(0,))],
        [Entry(b"a", F, size=2, chunks=(b"x" * 32,), lengths=(1,))],
        [Entry(b"a", F, size=1, chunks=(b"x" * 31,), lengths=(1,))],
        [Entry(b"a", F, size=2, chunks=(b"x" * 32,), lengths=(1, 1))],
        [Entry(b"a", F, size=0, chunks=(b"x" * 32, b"y" * 32), lengths=(1, -1))],
        [Entry(b"a", F, size=5 << 20, chunks=(b"x" * 32,), lengths=(5 << 20,))],
        [Entry(b"a", F, False, 0, 3, (b"x" * 32,) * 2, (1, 2))],
        [Entry(b"a", F, mtime_ns=1 << 63)],
    ],
)
def test_entries_that_are_no_tree_are_refused(entries: list[Entry]) -> None:
    with pytest.raises(ManifestError, match="expected"):
        Manifest.of(entries)
    with pytest.raises(ManifestError):
        decode(msgspec.msgpack.encode(("farmsync-manifest-1", Cutting(), sorted(entries, key=lambda one: one.path))))


def test_unsorted_entries_are_refused() -> None:
    with pytest.raises(ManifestError, match="ascending"):
        Manifest((Entry(b"b", D), Entry(b"a", D)))


@pytest.mark.parametrize(
    "target",
    [b"", b"/etc/passwd", b"..", b"../..", b"d/../..", b"sub/../x", b"a\0", b"./..", b"d//../../x", b"inside/../d"],
)
def test_a_link_that_leaves_the_tree_is_refused(target: bytes) -> None:
    with pytest.raises(ManifestError, match="link"):
        Manifest.of([Entry(b"d", D), Entry(b"inside", L, target=b"d"), Entry(b"l", L, target=target)])


def test_a_link_cannot_leave_by_way_of_another() -> None:
    """The text ``up/..`` stays inside; where the kernel goes, through the link ``up``, would not."""
    deep = [Entry(b"a", D), Entry(b"a/b", D), Entry(b"a/b/up", L, target=b"../..")]
    with pytest.raises(ManifestError, match="after directories alone"):
        Manifest.of([*deep, Entry(b"a/b/l", L, target=b"up/../x")])


@pytest.mark.parametrize("target", [b"d", b"d/x", b"missing", b"d/../e", b"./d", b"l", b"d/"])
def test_a_link_that_stays_inside_is_kept(target: bytes) -> None:
    tree = Manifest.of([Entry(b"d", D), Entry(b"l", L, target=target), Entry(b"d/up", L, target=b"../d/./x")])
    assert decode(tree.encode()) == tree


@pytest.mark.parametrize(
    "cutting",
    [Cutting(minimum=1), Cutting(average=1), Cutting(maximum=1 << 30), Cutting(whole=1 << 30), Cutting(minimum=1 << 20),
     Cutting(whole=-1)],
)  # fmt: skip
def test_cutting_parameters_out_of_bounds_are_refused(cutting: Cutting) -> None:
    with pytest.raises(ManifestError):
        Manifest((), cutting)


def test_an_encoding_that_is_not_the_canonical_one_is_refused() -> None:
    encoded = Manifest.of([file_entry(b"a", b"1", mtime_ns=5)]).encode()
    false_and_five = b"\xc2\x05"
    assert encoded.count(false_and_five) == 1
    longer = encoded.replace(false_and_five, b"\xc2\xcc\x05")
    with pytest.raises(ManifestError, match="canonical"):
        decode(longer)
    with pytest.raises(ManifestError):
        decode(encoded + b"\0")


def test_a_packed_manifest_that_claims_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(b"\0" * (64 << 20))
    with pytest.raises(ManifestError):
        decode_pieces([bomb])
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(Manifest(()).encode())
    with pytest.raises(ManifestError, match="claims"):
        decode_pieces([unsized])


def test_a_manifest_of_another_version_is_refused() -> None:
    with pytest.raises(ManifestError, match="expected the manifest of version"):
        decode(Manifest(()).encode(), "0" * 40)


def test_chunks_are_numbered_by_first_use() -> None:
    tree = Manifest.of([file_entry(b"b", b"one", b"two!"), file_entry(b"c", b"two!", b"3"), file_entry(b"d")])
    assert [length for _digest, length in tree.distinct_chunks()] == [3, 4, 1]
    assert tree.total_bytes == 12


@given(manifests(), manifests())
def test_a_difference_leads_from_one_to_the_other(old: Manifest, new: Manifest) -> None:
    step = difference(old, new)
    tree = {entry.path: entry for entry in old.entries}
    for entry in step.removed:
        del tree[entry.path]
    for was, entry in step.changed:
        assert tree[was.path] == was != entry
        tree[entry.path] = entry
    for entry in step.added:
        assert entry.path not in tree
        tree[entry.path] = entry
    assert Manifest.of(tree.values(), new.cutting) == new
    assert step.empty == (old.entries == new.entries)


def test_a_large_manifest_travels_in_pieces_that_fit_a_frame() -> None:
    tree = Manifest.of(file_entry(b"%06d" % number, b"%d" % number) for number in range(40_000))
    pieces = encode_pieces(tree)
    assert 1 < len(pieces) <= 60
    assert version_of(tree.encode()) == decode_pieces(pieces).version
