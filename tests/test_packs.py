"""The chunk store: what is in it is durable and right, whatever a crash, a disk or a second thread does."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farmsyncd.core.chunks import Damaged, Packer, digest_of
from farmsyncd.core.messages import Side, read
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.snapshot import Entry, Kind, Manifest
from farmsyncd.core.wire import FrameParser
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.packs import ChunkStore, Extent
from farmsyncd.errors import BadInput, LocalError, Unavailable
from tests.trees import file_entry, plant

PACKER = Packer()
PIECES = [b"price: %d\n" % number * (1 + 40 * number) for number in range(6)] + [random.Random(1).randbytes(700)]


def put(store: ChunkStore, pieces: Iterable[bytes]) -> list[bytes]:
    """Add these chunks; their digests."""
    digests = []
    with store.writer() as writer:
        for piece in pieces:
            writer.put(digest_of(piece), *packed(piece))
            digests.append(digest_of(piece))
    return digests


def packed(piece: bytes) -> tuple[str, int, bytes]:
    codec, data = PACKER.pack(piece)
    return codec, len(piece), bytes(data)


def manifest(*pieces: bytes) -> Manifest:
    return Manifest.of(file_entry(b"%03d" % number, piece) for number, piece in enumerate(pieces))


def sent(extents: Iterable[Extent], size: int = 100) -> list[bytes]:
    """The chunks that a peer gets when these ranges are sent in pieces of ``size``."""
    parser = FrameParser()
    messages = []
    for extent in extents:
        at = 0
        while data := extent.read(at, size):
            at += len(data)
            messages += [read(frame, Side.SERVER) for frame in parser.feed(data)]
        assert at == extent.length
        assert parser.idle
    assert all(isinstance(message, Chunk) for message in messages)
    return [message.digest for message in messages if isinstance(message, Chunk)]


def the_pack(directory: Path) -> Path:
    (pack,) = directory.glob("*.pack")
    return pack


def test_what_is_put_is_read_back_now_and_after_a_restart(tmp_path: Path) -> None:
    digests = put(ChunkStore(tmp_path / "packs"), PIECES)
    store = ChunkStore(tmp_path / "packs")
    assert len(store) == len(PIECES)
    assert [store.read(digest) for digest in digests] == PIECES
    assert store.missing(manifest(*PIECES, b"another")) == [len(PIECES)]
    assert all(store.check(digest) for digest in digests)
    assert not store.check(digest_of(b"another"))
    with pytest.raises(Unavailable, match="publish"):
        store.read(digest_of(b"another"))


def test_chunks_are_kept_once(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    put(store, PIECES)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    with store.writer() as writer:
        assert not writer.put(digest_of(PIECES[0]), *packed(PIECES[0]))
        assert writer.has(digest_of(PIECES[0]))
    put(store, PIECES)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == size


def test_a_chunk_is_seen_once_it_is_durable_and_not_before(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    with store.writer() as writer:
        writer.put(digest_of(b"a"), *packed(b"a"))
        assert writer.has(digest_of(b"a"))
        assert not store.has(digest_of(b"a"))
    assert store.has(digest_of(b"a"))
    with pytest.raises(LocalError, match="closed"):
        writer.put(digest_of(b"b"), *packed(b"b"))


def test_what_arrives_damaged_is_refused_and_the_rest_is_kept(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    with store.writer() as writer:
        writer.put(digest_of(b"good"), "raw", 4, b"good")
        with pytest.raises(Damaged):
            writer.put(digest_of(b"what was said"), "raw", 13, b"what was sent")
        with pytest.raises(Damaged):
            writer.put(digest_of(b"x" * 100), "raw", 99, b"x" * 100)
    assert store.has(digest_of(b"good"))
    assert len(store) == 1


def test_an_upload_that_breaks_off_keeps_what_came(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    with contextlib.suppress(ConnectionError), store.writer() as writer:
        writer.put(digest_of(b"a"), *packed(b"a"))
        raise ConnectionError
    assert store.missing(manifest(b"a", b"b")) == [1]
    assert ChunkStore(tmp_path).missing(manifest(b"a", b"b")) == [1]


def test_a_manifest_that_lies_about_a_stored_chunk_is_bad_input(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    put(store, [b"four"])
    lying = Manifest((Entry(b"f", Kind.FILE, size=5, chunks=(digest_of(b"four"),), lengths=(5,)),))
    with pytest.raises(BadInput, match="expected 4 bytes"):
        store.missing(lying)


def test_frames_are_joined_ranges_that_a_peer_reads_as_messages(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    first, second = put(store, PIECES), put(store, [b"other", b"pack"])
    assert len(store.frames([*first, *second])) == 2
    assert sent(store.frames([*second, *reversed(first), *first])) == [*first, *second]
    few = [first[0], first[1], first[4]]
    assert len(store.frames(few)) == 2
    assert sent(store.frames(few), 7) == few
    assert store.frames([]) == []
    with pytest.raises(Unavailable):
        store.frames([digest_of(b"never put")])


def test_a_writer_goes_on_in_another_pack_when_one_is_large(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, pack_size=1000)
    pieces = [random.Random(number).randbytes(300) for number in range(10)]
    digests = put(store, pieces)
    assert len(list(tmp_path.glob("*.pack"))) == 4
    again = ChunkStore(tmp_path)
    assert [again.read(digest) for digest in digests] == pieces
    assert sorted(sent(again.frames(digests))) == sorted(digests)


# A crash: the pack as far as the disk had it, and no index.


def frame_ends(store: ChunkStore, digests: Iterable[bytes]) -> list[int]:
    return [extent.offset + extent.length for digest in digests for extent in store.frames([digest])]


def test_a_pack_torn_at_any_byte_keeps_its_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # thousands of them; nothing here loses its power
    pieces = [b"first" * 30, b"second", b"the third one"]
    store = ChunkStore(tmp_path / "whole")
    digests = put(store, pieces)
    ends = frame_ends(store, digests)
    pack = the_pack(tmp_path / "whole")
    data = pack.read_bytes()
    torn = tmp_path / "torn"
    torn.mkdir()
    for length in range(ends[0] - 3, len(data) + 1):
        (torn / pack.name).write_bytes(data[:length])
        for index in torn.glob("*.index"):
            index.unlink()
        for _start in range(2):  # what the first start repaired, the second finds in order
            again = ChunkStore(torn)
            whole = [digest for digest, end in zip(digests, ends, strict=True) if end <= length]
            assert [digest for digest in digests if again.has(digest)] == whole
            assert [again.read(digest) for digest in whole] == pieces[: len(whole)]
        put(again, pieces)
        assert [ChunkStore(torn).read(digest) for digest in digests] == pieces
        shutil.rmtree(torn)
        torn.mkdir()


def test_what_the_disk_never_got_is_not_believed(tmp_path: Path) -> None:
    """After a crash, a file may have its length and not all its bytes."""
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    ends = frame_ends(store, digests)
    pack = the_pack(tmp_path)
    data = bytearray(pack.read_bytes())
    data[ends[2] - 20 : ends[2] - 1] = bytes(19)  # the end of a chunk's bytes
    data[ends[4] + 3 : ends[4] + 40] = bytes(37)  # and a frame's head: nothing behind it can be found
    pack.write_bytes(data)
    pack.with_suffix(".index").unlink()
    again = ChunkStore(tmp_path)
    assert [again.has(digest) for digest in digests] == [True, True, False, True, True, False, False]
    assert pack.stat().st_size == ends[4]


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -33, -1])
def test_an_index_torn_or_spoiled_is_made_again(tmp_path: Path, cut: int) -> None:
    digests = put(ChunkStore(tmp_path), PIECES)
    index = the_pack(tmp_path).with_suffix(".index")
    good = index.read_bytes()
    spoiled = bytearray(good)
    spoiled[cut] ^= 1
    for data in (good[:cut], bytes(spoiled)):
        index.write_bytes(data)
        store = ChunkStore(tmp_path)
        assert [store.read(digest) for digest in digests] == PIECES
        assert index.read_bytes() == good


def test_leftovers_are_swept_up(tmp_path: Path) -> None:
    put(ChunkStore(tmp_path), [b"a"])
    plant(tmp_path, {"0000000009.index": b"", "0000000001.index.new": b"", "0000000007.pack": b"", "README": b"mine"})
    store = ChunkStore(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000001.index", "0000000001.pack", "README"]
    put(store, [b"b"])
    assert ChunkStore(tmp_path).has(digest_of(b"b"))


def test_a_frame_whose_last_byte_is_another_was_torn(tmp_path: Path) -> None:
    """Who is sent a frame without its comma ends the connection, and would at each new attempt."""
    put(ChunkStore(tmp_path), [b"a", b"b"])
    pack = the_pack(tmp_path)
    pack.write_bytes(pack.read_bytes()[:-1] + b"\0")
    pack.with_suffix(".index").unlink()
    store = ChunkStore(tmp_path)
    assert [store.has(digest_of(piece)) for piece in (b"a", b"b")] == [True, False]


def test_a_start_after_packs_were_removed_goes_on_with_new_numbers(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    for piece in (b"a", b"b", b"c"):
        put(store, [piece])
    store.collect({digest_of(b"c")})
    put(ChunkStore(tmp_path), [b"d"])
    assert sorted(path.stem for path in tmp_path.glob("*.pack")) == ["0000000003", "0000000004"]
    assert all(ChunkStore(tmp_path).check(digest_of(piece)) for piece in (b"c", b"d"))


def test_what_waits_to_be_written_is_what_was_put_whatever_becomes_of_the_buffer(tmp_path: Path) -> None:
    store, buffer = ChunkStore(tmp_path), bytearray(b"a chunk")
    with store.writer() as writer:
        writer.put_verified(digest_of(b"a chunk"), "raw", 7, memoryview(buffer))
        buffer[:] = b"another"
    assert store.read(digest_of(b"a chunk")) == b"a chunk"


def test_each_step_of_writing_may_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies at a system call; what was in the store stays, and the next start needs no help."""
    calls = ["write_all", "start_writing", "write_file", "sync_directory"]
    for number, name in enumerate(calls):
        directory = tmp_path / str(number)
        store = ChunkStore(directory)
        put(store, [b"before"])

        class Killed(BaseException):
            pass

        def die(*_arguments: object, kind: type[BaseException] = Killed) -> None:
            raise kind

        with monkeypatch.context() as patch:
            patch.setattr(durable, name, die)
            with pytest.raises(Killed):
                put(store, [b"after"])
        again = ChunkStore(directory)
        assert again.read(digest_of(b"before")) == b"before"
        put(again, [b"after"])
        assert ChunkStore(directory).read(digest_of(b"after")) == b"after"


# Damage.


def damage(directory: Path, store: ChunkStore, digest: bytes) -> None:
    """Change the last byte of a chunk on the disk."""
    (extent,) = store.frames([digest])
    with the_pack(directory).open("r+b") as file:
        file.seek(extent.offset + extent.length - 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_damaged_chunk_is_forgotten_and_healed_by_a_new_publication(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    damage(tmp_path, store, digests[3])
    with pytest.raises(Damaged, match=digests[3].hex()[:16]):
        store.read(digests[3])
    for found in (store, ChunkStore(tmp_path)):
        assert found.missing(manifest(*PIECES)) == [3]
        assert found.read(digests[4]) == PIECES[4]
    put(store, PIECES)
    for found in (store, ChunkStore(tmp_path)):
        assert found.missing(manifest(*PIECES)) == []
        assert found.read(digests[3]) == PIECES[3]


def test_a_chunk_that_lies_elsewhere_by_now_is_not_forgotten(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    (digest,) = put(store, [b"a chunk"])
    shelf = store._shelf
    was = shelf.places[digest]
    with store.writer() as writer:
        writer.put_verified(digest, *packed(b"a chunk"), again=True)
    shelf.forget(digest, was)
    assert store.read(digest) == b"a chunk"


def test_a_check_finds_damage(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    damage(tmp_path, store, digests[6])
    assert not store.check(digests[6])
    assert not store.has(digests[6])
    assert store.check(digests[5])


def test_a_scrub_finds_all_damage(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    damage(tmp_path, store, digests[2])
    damage(tmp_path, store, digests[5])
    told: list[tuple[int, int]] = []
    assert store.verify(lambda *done: told.append(done)) == [digests[2], digests[5]]
    assert told[-1][0] == told[-1][1] == the_pack(tmp_path).stat().st_size
    assert store.verify() == []


def test_a_pack_that_was_cut_short_keeps_what_it_has(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    os.truncate(the_pack(tmp_path), frame_ends(store, digests)[3] + 5)
    assert not store.check(digests[5])
    again = ChunkStore(tmp_path)
    assert [again.has(digest) for digest in digests] == [True] * 4 + [False] * 3


# A full disk.


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_full_disk_is_told_and_gives_back_what_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    store = ChunkStore(tmp_path, pack_size=2500)
    put(store, [b"before"])
    before = sorted(tmp_path.iterdir())
    real = os.writev
    left = [allowed]

    def writev(fd: int, pieces: list[memoryview]) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return real(fd, pieces)

    monkeypatch.setattr(os, "writev", writev)
    with pytest.raises(Unavailable, match="disk is full"):
        put(store, [random.Random(number).randbytes(1000) for number in range(9)])
    monkeypatch.undo()
    complete = [path for path in sorted(tmp_path.iterdir()) if path not in before]
    assert len(complete) == 2 * (allowed // 2)  # whole packs that went before, each with its index
    assert store.read(digest_of(b"before")) == b"before"
    put(store, [b"after"])
    assert len(ChunkStore(tmp_path)) == len(store)


def test_writes_that_the_kernel_takes_in_parts_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real(fd, [pieces[0][:100]]))
    store = ChunkStore(tmp_path)
    digests = put(store, PIECES)
    monkeypatch.undo()
    assert [ChunkStore(tmp_path).read(digest) for digest in digests] == PIECES


# Clearing away.


def noise(*seeds: int) -> list[bytes]:
    return [random.Random(seed).randbytes(500) for seed in seeds]


def test_what_nothing_needs_is_removed_and_what_is_kept_stays(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    old, mixed, new = (put(store, noise(*range(at, at + 10))) for at in (0, 10, 20))
    keep = {*mixed[:2], *new[:8]}
    done = store.collect(keep)
    assert (done.removed, done.rewritten) == (2, 1)
    for found in (store, ChunkStore(tmp_path)):
        assert all(found.check(digest) for digest in keep)
        assert not any(found.has(digest) for digest in old)
        assert [found.has(digest) for digest in mixed] == [True] * 2 + [False] * 8
        assert sorted(sent(found.frames(keep))) == sorted(keep)
    assert len(list(tmp_path.glob("*.pack"))) == 2
    assert store.collect(keep).removed == 0


def test_a_stream_that_is_being_sent_outlives_its_pack(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, noise(*range(5)))
    extents = store.frames(digests)
    assert store.collect(frozenset()).removed == 1
    assert not list(tmp_path.glob("*.pack"))
    assert sent(extents) == digests
    assert len(store) == 0


def test_a_version_on_its_way_in_is_held(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    pieces = noise(1, 2, 3)
    put(store, pieces[:2])
    put(store, noise(7))
    with store.hold(manifest(*pieces)) as hold:
        assert hold.missing == [2]
        assert store.collect(frozenset()).removed == 1
        put(store, pieces[2:])
        assert store.collect(frozenset()).removed == 0
        assert store.missing(manifest(*pieces)) == []
    assert store.collect(frozenset()).removed == 2
    hold.release()


def test_a_hold_that_begins_while_clearing_away_still_holds(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    piece = noise(1)[0]
    put(store, [piece])

    class Keep(set[bytes]):
        """Nothing to keep; but a publication begins when the question is put."""

        def __contains__(self, digest: object) -> bool:
            if not self:
                self.add(b"asked")
                assert store.hold(manifest(piece)).missing == []
            return False

    assert store.collect(Keep()).removed == 0
    assert store.check(digest_of(piece))


def test_an_upload_that_may_be_taken_up_again_is_spared(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    put(store, noise(1))
    written = the_pack(tmp_path).stat().st_mtime
    assert store.collect(frozenset(), spare_since=written - 1).removed == 0
    assert store.collect(frozenset(), spare_since=written + 1).removed == 1


def test_many_small_packs_become_a_few_with_all_that_was_in_them(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests: list[bytes] = []
    most = 0
    for number in range(200):
        digests += put(store, [b"publication %d" % number, random.Random(number).randbytes(number * 10 + 1)])
        store.collect(frozenset(digests))
        most = max(most, len(list(tmp_path.glob("*.pack"))))
    assert most < 50
    before = sent(store.frames(digests))
    assert sorted(before) == sorted(digests)
    assert sent(ChunkStore(tmp_path).frames(digests)) == before


def test_damage_is_not_carried_on_when_a_pack_is_rewritten(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path)
    digests = put(store, noise(*range(10)))
    damage(tmp_path, store, digests[1])
    store.collect(set(digests[:3]))
    for found in (store, ChunkStore(tmp_path)):
        assert [found.has(digest) for digest in digests[:3]] == [True, False, True]


# Many at once.


def test_many_threads_write_read_and_clear_away_at_once(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, pack_size=4000)
    shared = noise(*range(8))

    def publish(number: int) -> list[int]:
        pieces = [*shared, *noise(*range(100 * number, 100 * number + 8))]
        tree = manifest(*pieces)
        with store.hold(tree) as hold:
            put(store, (pieces[wanted] for wanted in hold.missing))
            assert store.missing(tree) == []
            assert {bytes(store.read(digest_of(piece))) for piece in pieces} == set(pieces)
            assert set(sent(store.frames(map(digest_of, pieces)))) == set(map(digest_of, pieces))
            store.collect(set(map(digest_of, shared)))
            return store.missing(tree)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(publish, range(1, 13))) == [[]] * 12
    store.collect(set(map(digest_of, shared)))
    for found in (store, ChunkStore(tmp_path)):
        assert all(found.check(digest_of(piece)) for piece in shared)


def test_one_writer_serves_many_threads(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, pack_size=20_000)
    pieces = noise(*range(100))
    with store.writer() as writer, ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda piece: writer.put(digest_of(piece), *packed(piece)), pieces * 3))
    assert sum(added) >= 100
    assert [ChunkStore(tmp_path).read(digest_of(piece)) for piece in pieces] == pieces


def test_a_directory_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    plant(tmp_path, {"packs": b"a file"})
    with pytest.raises(LocalError, match="packs"):
        ChunkStore(tmp_path / "packs")
