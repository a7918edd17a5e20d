"""Delta files: made once, small, whole, and never a reason for a publication to fail."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

from farmsyncd.core.chunks import Damaged
from farmsyncd.edges.content import deltas, packing, tree
from farmsyncd.edges.content.packs import ChunkStore, Extent
from farmsyncd.errors import LocalError
from tests.versions import File, Node, Version, grow, read_delta

RNG = random.Random(5)
OLD: dict[bytes, Node] = {
    **{b"small/%d" % number: File(RNG.randbytes(900)) for number in range(40)},
    b"large": File(RNG.randbytes(60_000)),
}


def changed(path: bytes, at: int, what: bytes) -> dict[bytes, Node]:
    node = OLD[path]
    assert isinstance(node, File)
    return {path: File(node.data[:at] + what + node.data[at:])}


NEW: dict[bytes, Node] = {
    **OLD,
    **changed(b"small/7", 100, b"!"),
    **changed(b"small/9", 0, b"?"),
    **changed(b"large", 30_000, b"inserted"),
    b"small/new": File(RNG.randbytes(500)),
}


@attrs.frozen
class Published:
    old: Version
    new: Version
    store: ChunkStore


@pytest.fixture
def published(tmp_path: Path) -> Published:
    old, new = grow(tmp_path / "old", OLD), grow(tmp_path / "new", NEW)
    store = ChunkStore(tmp_path / "packs")
    for version in (old, new):
        with store.writer() as writer:
            scanned = tree.Scanned(bytes(version.path), version.manifest)
            packing.store_chunks(scanned, store.missing(version.manifest), writer)
    return Published(old, new, store)


def test_a_delta_leads_to_all_new_chunks_and_is_small(tmp_path: Path, published: Published) -> None:
    made = deltas.make(published.old.manifest, published.new.manifest, published.store, tmp_path / "delta")
    assert made is not None
    frames = made.path.read_bytes()
    assert made.size == len(frames) < 2500
    assert (made.old, made.new) == (published.old.manifest.version, published.new.manifest.version)
    manifest, bundles = read_delta(frames, published.old.manifest, made.new)
    assert manifest == published.new.manifest
    assert made.count == 1 + len(bundles)
    known = {digest for digest, _length in published.old.manifest.distinct_chunks()}
    chunks = manifest.distinct_chunks()
    lacking = [number for number, (digest, _length) in enumerate(chunks) if digest not in known]
    assert sorted(number for bundle in bundles for number in bundle.chunks) == lacking


def test_the_same_delta_is_made_each_time(tmp_path: Path, published: Published) -> None:
    for name in ("one", "two"):
        deltas.make(published.old.manifest, published.new.manifest, published.store, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_there_is_none_between_a_version_and_itself(tmp_path: Path, published: Published) -> None:
    assert deltas.make(published.old.manifest, published.old.manifest, published.store, tmp_path / "delta") is None
    assert not (tmp_path / "delta").exists()


@attrs.frozen
class Partly:
    """A store in which some chunks are damaged."""

    store: ChunkStore
    damaged: frozenset[bytes]

    def read(self, digest: bytes) -> bytes:
        if digest in self.damaged:
            raise Damaged(digest, "on purpose")
        return self.store.read(digest)

    def frames(self, digests: Iterable[bytes]) -> list[Extent]:
        return self.store.frames(digests)


def test_damaged_chunks_are_left_out(tmp_path: Path, published: Published) -> None:
    everything = frozenset(digest for digest, _length in published.old.manifest.distinct_chunks())
    store = Partly(published.store, everything)
    made = deltas.make(published.old.manifest, published.new.manifest, store, tmp_path / "delta")
    assert made is not None
    manifest, bundles = read_delta(made.path.read_bytes(), published.old.manifest, made.new)
    assert manifest == published.new.manifest
    assert [bundle.prefix for bundle in bundles] == [()], "only what is new stands on nothing"


def test_a_difference_that_does_not_pay_is_left_to_chunks(tmp_path: Path) -> None:
    old = grow(tmp_path / "old", {b"a": File(RNG.randbytes(900)), b"b": File(b"b")})
    new = grow(tmp_path / "new", {b"a": File(RNG.randbytes(900)), b"b": File(b"b")})
    store = ChunkStore(tmp_path / "packs")
    for version in (old, new):
        with store.writer() as writer:
            scanned = tree.Scanned(bytes(version.path), version.manifest)
            packing.store_chunks(scanned, store.missing(version.manifest), writer)
    made = deltas.make(old.manifest, new.manifest, store, tmp_path / "delta")
    assert made is not None
    assert read_delta(made.path.read_bytes(), old.manifest, new.manifest.version) == (new.manifest, [])


def test_a_delta_that_cannot_be_written_is_told(tmp_path: Path, published: Published) -> None:
    with pytest.raises(LocalError, match="missing/delta"):
        deltas.make(published.old.manifest, published.new.manifest, published.store, tmp_path / "missing/delta")
