"""Packing a tree's chunks: what is stored or sent is what was read, or nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from farmsyncd.core.chunks import Unpacker
from farmsyncd.core.cutting import Cutting
from farmsyncd.core.messages import Side, read
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.wire import FrameParser
from farmsyncd.edges.content import packing, tree
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.edges.content.tree import Scanned
from farmsyncd.edges.content.treecache import TreeCache
from farmsyncd.errors import BadInput
from tests.trees import plant

LARGE = Cutting(minimum=256, average=1024, maximum=4096, whole=1024)
TREE = {
    "a/text": b"price: 1\n" * 100,
    "b": b"b",
    "copy of b": b"b",
    "empty": b"",
    "large": random.Random(1).randbytes(40_000),
    **{f"many/{number}": b"%d" % number for number in range(200)},
}


def scanned(tmp_path: Path, cache: TreeCache | None = None) -> Scanned:
    return tree.scan(plant(tmp_path / "site", TREE), cutting=LARGE, cache=cache)


def test_a_whole_tree_goes_into_a_store_and_out_again(tmp_path: Path) -> None:
    source = scanned(tmp_path)
    store = ChunkStore(tmp_path / "packs")
    with store.hold(source.manifest) as hold, store.writer() as writer:
        assert packing.store_chunks(source, hold.missing, writer) == sum(
            length for _digest, length in source.manifest.distinct_chunks()
        )
    assert store.missing(source.manifest) == []
    for entry in source.manifest.entries:
        content = TREE.get(entry.path.decode())
        if content is not None:
            assert b"".join(map(store.read, entry.chunks)) == content


@pytest.mark.parametrize("threads", [1, 3])
def test_only_the_chunks_asked_for_are_packed_in_order(tmp_path: Path, threads: int) -> None:
    source = scanned(tmp_path)
    distinct = source.manifest.distinct_chunks()
    numbers = [5, 0, 3, len(distinct) - 1]
    chunks = list(packing.packed_chunks(source, numbers, threads))
    assert [(chunk.digest, chunk.length) for chunk in chunks] == [distinct[number] for number in sorted(numbers)]
    assert list(packing.packed_chunks(source, [])) == []


def test_frames_are_messages_that_a_peer_reads(tmp_path: Path) -> None:
    source = scanned(tmp_path)
    parser, unpacker = FrameParser(), Unpacker()
    for chunk in packing.packed_chunks(source, range(30)):
        (frame,) = parser.feed(chunk.frame())
        message = read(frame, Side.CLIENT)
        assert isinstance(message, Chunk)
        assert len(unpacker.unpack(message.digest, message.codec, message.length, message.data)) == chunk.length


def test_a_file_that_changed_since_it_was_read_is_named(tmp_path: Path) -> None:
    source = scanned(tmp_path)
    (tmp_path / "site/many/7").write_bytes(b"other")
    with pytest.raises(BadInput, match=r"many/7: it changed after it was read"):
        list(packing.packed_chunks(source, range(len(source.manifest.distinct_chunks()))))


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    source = scanned(tmp_path)
    (tmp_path / "site/large").unlink()
    with pytest.raises(BadInput, match=r"large: it cannot be read any more"):
        list(packing.packed_chunks(source, range(len(source.manifest.distinct_chunks()))))


def test_a_cache_that_was_wrong_forgets_the_file(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "cache", lambda: 4 * 10**18)
    source = scanned(tmp_path, cache)
    path = tmp_path / "site/b"
    assert cache.get(b"b", path.stat()) is not None
    path.write_bytes(b"B")
    with pytest.raises(BadInput):
        list(packing.packed_chunks(source, range(len(source.manifest.distinct_chunks()))))
    assert cache.get(b"b", path.stat()) is None
    again = TreeCache(tmp_path / "cache", lambda: 4 * 10**18)
    assert tree.scan(tmp_path / "site", cutting=LARGE, cache=again).manifest != source.manifest


def test_whoever_stops_taking_chunks_leaves_nothing_behind(tmp_path: Path) -> None:
    chunks = packing.packed_chunks(scanned(tmp_path), range(50))
    next(chunks)
    close = getattr(chunks, "close")  # noqa: B009 - an iterator to its users, a generator in truth
    close()
    assert list(chunks) == []
