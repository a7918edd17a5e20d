"""Assembling: whatever the way, the tree is the published one, byte for byte, or there is no tree."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.core.chunks import Damaged
from farmsyncd.core.delta import Bundle
from farmsyncd.core.messages.content import Chunk
from farmsyncd.edges.content import checking, deltas, durable, packing, tree, writeback
from farmsyncd.edges.content.assembly import Assembler, Base, Cancelled
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.errors import LocalError, Unavailable
from tests.versions import TIME, File, LinkTo, Node, Version, grow, look, read_delta, stage, steps, trees, workshop

OLD: dict[bytes, Node] = {
    b"same/one": File(b"one"),
    b"same/two": File(b"two", executable=True),
    b"same/empty": File(),
    b"changed": File(b"before"),
    b"large": File(random.Random(2).randbytes(30_000)),
    b"gone": File(b"gone"),
    b"directory": None,
    b"link": LinkTo(b"same/one"),
}


def step_of(nodes: dict[bytes, Node]) -> dict[bytes, Node]:
    """What OLD becomes in most tests: a small change, one in the middle of the large file, a new file."""
    large = nodes[b"large"]
    assert isinstance(large, File)
    new = {path: node for path, node in nodes.items() if path != b"gone"}
    new[b"changed"] = File(b"after it", mtime_ns=TIME + 5)
    new[b"large"] = File(large.data[:15_000] + b"inserted" + large.data[15_000:], mtime_ns=TIME + 6)
    new[b"new/er"] = File(b"new")
    return new


@pytest.fixture
def old(tmp_path: Path) -> Version:
    return grow(tmp_path / "old", OLD)


@pytest.fixture
def new(tmp_path: Path) -> Version:
    return grow(tmp_path / "new", step_of(OLD))


@pytest.fixture
def base(tmp_path: Path, old: Version) -> Base:
    return Base(old.manifest, stage(old, tmp_path / "base"))


def store_of(path: Path, *versions: Version) -> ChunkStore:
    store = ChunkStore(path)
    for version in versions:
        with store.writer() as writer:
            scanned = tree.Scanned(os.fsencode(version.path), version.manifest)
            packing.store_chunks(scanned, store.missing(version.manifest), writer)
    return store


def modes(path: Path) -> Iterator[int]:
    for directory, _names, files in os.walk(path):
        yield stat.S_IMODE(Path(directory).stat().st_mode)
        yield from (stat.S_IMODE((Path(directory) / name).lstat().st_mode) & 0o222 for name in files if name != "link")


@settings(max_examples=40)
@given(trees(), st.integers(1, 2))
def test_a_first_copy_is_the_published_tree(nodes: dict[bytes, Node], workers: int) -> None:
    with workshop() as here:
        version = grow(here / "source", nodes)
        copy = stage(version, here / "copy", workers=workers)
        assert look(copy) == look(version.path)
        assert checking.verify(version.manifest, copy, deep=True) == []


@settings(max_examples=60)
@given(steps(), st.sampled_from(["chunks", "delta", "delta meanwhile"]))
def test_any_step_by_chunks_or_by_delta_is_the_published_tree(
    step: tuple[dict[bytes, Node], dict[bytes, Node]], way: str
) -> None:
    with workshop() as here:
        before, after = grow(here / "before", step[0]), grow(here / "after", step[1])
        base = Base(before.manifest, stage(before, here / "base"))
        manifest = after.manifest
        bundles: list[Bundle] = []
        made = deltas.make(before.manifest, after.manifest, store_of(here / "packs", before, after), here / "delta")
        if way != "chunks" and made is not None:
            manifest, bundles = read_delta(made.path.read_bytes(), before.manifest, after.manifest.version)
        assembler = Assembler(here / "copy", manifest, [base])
        assembler.prepare()
        early = assembler.lacking()
        if way == "delta meanwhile":
            assembler.reuse(bundles)
        else:
            assembler.reuse()
            assert assembler.lacking() == early
            assembler.apply(bundles)
        assembler.take(after.chunks(assembler.lacking()))
        assembler.finish()
        assembler.close()
        assert assembler.progress.done == assembler.progress.total == after.manifest.total_bytes
        assert look(here / "copy") == look(after.path)
        assert look(base.path) == look(before.path)
        assert checking.verify(before.manifest, base.path, deep=True) == []


class Cut(Exception):
    """The attempt ends here."""


@settings(max_examples=60)
@given(steps(), st.data())
def test_an_attempt_that_was_cut_short_anywhere_is_taken_up(
    step: tuple[dict[bytes, Node], dict[bytes, Node]], data: st.DataObject
) -> None:
    with workshop() as here:
        before, after = grow(here / "before", step[0]), grow(here / "after", step[1])
        base = Base(before.manifest, stage(before, here / "base"))
        left = data.draw(st.integers(0, 12), "pieces of work")

        def cut(_amount: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Cut

        at_first = data.draw(st.booleans(), "with a base at first")
        bases = [base] if at_first else []
        first = Assembler(here / "copy", after.manifest, bases, workers=1, throttle=cut)
        try:
            first.prepare()
            first.reuse()
            first.take(after.chunks(first.lacking()))
            first.finish()
        except Cut:
            pass
        finally:
            first.close()
        lacked = set(first.lacking())
        spoil(here / "copy", data)
        again = data.draw(st.booleans(), "with a base then")
        second = Assembler(here / "copy", after.manifest, [base] if again else [])
        second.prepare()
        second.reuse()
        if not bases and not lacked:
            most = max((len(entry.chunks) for entry in after.manifest.entries), default=0)
            assert len(second.lacking()) <= most, "more than the file that was spoilt is fetched again"
        second.take(after.chunks(second.lacking()))
        second.finish()
        second.close()
        assert look(here / "copy") == look(after.path)
        assert checking.verify(after.manifest, here / "copy", deep=True) == []
        assert look(base.path) == look(before.path)


def spoil(path: Path, data: st.DataObject) -> None:
    """What a crash, or somebody, may do to a directory that is not finished: to a file that is no other version's."""
    own = [at for at in sorted(path.rglob("*")) if at.is_file() and not at.is_symlink() and at.stat().st_nlink == 1]
    spoilt = data.draw(st.booleans(), "spoil")
    if own and spoilt:
        victim = own[data.draw(st.integers(0, len(own) - 1), "victim")]
        victim.parent.chmod(0o755)
        victim.chmod(0o644)
        content = victim.read_bytes()
        how = data.draw(st.sampled_from(["cut", "zeros", "time", "link", "directory"]), "how")
        if how == "cut":
            victim.write_bytes(content[: len(content) // 2])
        elif how == "zeros":
            victim.write_bytes(bytes(min(100, len(content))) + content[100:])
        elif how == "time":
            os.utime(victim, ns=(7, 7))
        else:
            victim.unlink()
            victim.symlink_to("/etc/passwd") if how == "link" else victim.mkdir()


def test_what_arrived_is_not_asked_for_again(tmp_path: Path, new: Version) -> None:
    first = Assembler(tmp_path / "copy", new.manifest)
    first.prepare()
    lacking = first.lacking()
    assert lacking == list(range(len(new.manifest.distinct_chunks())))
    first.take(new.chunks(lacking[::2]))
    first.close()
    second = Assembler(tmp_path / "copy", new.manifest)
    second.prepare()
    assert second.lacking() == lacking[1::2]
    second.close()


def test_unchanged_files_are_links_and_a_tree_is_read_only(tmp_path: Path, new: Version, base: Base) -> None:
    copy = stage(new, tmp_path / "copy", base)
    for name in ("same/one", "same/two", "same/empty"):
        assert (copy / name).stat().st_ino == (base.path / name).stat().st_ino
    assert not any(mode & 0o222 for mode in modes(copy))


def test_a_moved_file_is_a_link_too(tmp_path: Path, base: Base) -> None:
    moved = grow(tmp_path / "moved", {b"other/place": OLD[b"same/two"], b"again": OLD[b"same/two"]})
    copy = stage(moved, tmp_path / "copy", base)
    assert (copy / "other/place").stat().st_ino == (base.path / "same/two").stat().st_ino
    assert look(copy) == look(moved.path)


def test_only_what_changed_lacks(tmp_path: Path, old: Version, new: Version, base: Base) -> None:
    assembler = Assembler(tmp_path / "copy", new.manifest, [base])
    assembler.prepare()
    known = {digest for digest, _length in old.manifest.distinct_chunks()}
    chunks = new.manifest.distinct_chunks()
    assert assembler.lacking() == [number for number, (digest, _) in enumerate(chunks) if digest not in known]
    assert 3 <= len(assembler.lacking()) <= 6
    assembler.close()


def test_the_umask_does_not_matter(tmp_path: Path, new: Version) -> None:
    before = os.umask(0o077)
    try:
        copy = stage(new, tmp_path / "copy")
    finally:
        os.umask(before)
    assert (copy / "same/one").stat().st_mode & 0o777 == 0o444
    assert (copy / "same/two").stat().st_mode & 0o777 == 0o555
    assert (copy / "large").stat().st_mode & 0o777 == 0o444
    assert (copy / "same").stat().st_mode & 0o777 == 0o555


def test_a_damaged_chunk_is_named_and_never_staged(tmp_path: Path, new: Version) -> None:
    assembler = Assembler(tmp_path / "copy", new.manifest, workers=1)
    assembler.prepare()
    lacking = assembler.lacking()
    for number, good in zip(lacking, new.chunks(lacking), strict=True):
        bad = Chunk(good.digest, good.codec, good.length, bytes([good.data[0] ^ 1]) + good.data[1:])
        with pytest.raises(Damaged, match=good.digest.hex()[:16]):
            assembler.take([bad])
        assert number in assembler.lacking()
        assembler.take([good])
        assert number not in assembler.lacking()
    assembler.finish()
    assembler.close()
    assert look(tmp_path / "copy") == look(new.path)


def test_chunks_that_were_not_asked_for_are_passed_over(tmp_path: Path, old: Version, new: Version) -> None:
    assembler = Assembler(tmp_path / "copy", new.manifest)
    assembler.prepare()
    assembler.take([*old.chunks(), *new.chunks(), *new.chunks(), *old.chunks()])
    assembler.finish()
    assembler.close()
    assert look(tmp_path / "copy") == look(new.path)


@pytest.mark.parametrize("large", [20_000, 1_000_000])
def test_the_memory_of_large_files_alone_is_given_back(
    tmp_path: Path, new: Version, base: Base, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(writeback, "LARGE", large)
    monkeypatch.setattr(writeback, "WINDOW", 5_000)
    monkeypatch.setattr(durable, "give_back", lambda _fd, _at, length: given_back.append(length))
    for copy, bases in (("first", ()), ("update", (base,))):
        given_back.clear()
        stage(new, tmp_path / copy, *bases)
        assert (sum(given_back) > 10_000) == (large == 20_000)
        assert look(tmp_path / copy) == look(new.path)


def test_an_unfinished_tree_is_not_finished(tmp_path: Path, new: Version) -> None:
    assembler = Assembler(tmp_path / "copy", new.manifest)
    assembler.prepare()
    with pytest.raises(LocalError, match="chunks lack"):
        assembler.finish()
    assembler.close()


@pytest.mark.parametrize("name", ["same/one", "same/two", "same/empty"])
def test_a_base_file_that_was_touched_is_not_linked(tmp_path: Path, new: Version, base: Base, name: str) -> None:
    (base.path / name).chmod(0o644)
    (base.path / name).write_bytes(b"1ne" if name == "same/one" else b"other")
    assembler = Assembler(tmp_path / "copy", new.manifest, [base])
    assembler.prepare()
    early = set(assembler.lacking())
    assembler.reuse()
    more = set(assembler.lacking()) - early
    assert len(more) == (name != "same/empty")
    assembler.take(new.chunks(assembler.lacking()))
    assembler.finish()
    assembler.close()
    assert look(tmp_path / "copy") == look(new.path)


def test_a_base_file_that_lost_its_bytes_is_fetched_again_by_either_way(
    tmp_path: Path, old: Version, new: Version, base: Base
) -> None:
    status = (base.path / "large").stat()
    for name in ("large", "changed"):
        (base.path / name).chmod(0o644)
        content = (base.path / name).read_bytes()
        (base.path / name).write_bytes(b"\0\0\0" + content[3:])
    os.utime(base.path / "large", ns=(status.st_mtime_ns, status.st_mtime_ns))
    store = store_of(tmp_path / "packs", old, new)
    made = deltas.make(old.manifest, new.manifest, store, tmp_path / "delta")
    assert made is not None
    manifest, bundles = read_delta(made.path.read_bytes(), old.manifest, new.manifest.version)
    assert bundles
    assembler = Assembler(tmp_path / "copy", manifest, [base])
    assembler.prepare()
    assembler.reuse()
    assembler.apply(bundles)
    assert assembler.lacking()
    assembler.take(new.chunks(assembler.lacking()))
    assembler.finish()
    assembler.close()
    assert look(tmp_path / "copy") == look(new.path)


def test_a_base_that_is_gone_altogether_costs_only_the_transfer(tmp_path: Path, old: Version, new: Version) -> None:
    gone = Base(old.manifest, tmp_path / "gone")
    assert look(stage(new, tmp_path / "copy", gone)) == look(new.path)


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM])
def test_where_no_link_can_be_made_the_bytes_are_copied(
    tmp_path: Path, new: Version, base: Base, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assembler = Assembler(tmp_path / "copy", new.manifest, [base])
    assembler.prepare()
    early = assembler.lacking()
    assembler.reuse()
    assert assembler.lacking() == early, "what is on this disk was asked for"
    assembler.take(new.chunks(early))
    assembler.finish()
    assembler.close()
    assert look(tmp_path / "copy") == look(new.path)
    assert (tmp_path / "copy/same/one").stat().st_ino != (base.path / "same/one").stat().st_ino


def test_links_that_are_there_already_are_not_made_again(
    tmp_path: Path, new: Version, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = Assembler(tmp_path / "copy", base.manifest, [base])
    ahead.prepare()
    ahead.reuse()
    ahead.close()

    def refuse(*_arguments: object, **_more: object) -> None:
        raise AssertionError("a link is made")

    monkeypatch.setattr(os, "link", refuse)
    stage(new, tmp_path / "copy", base)
    assert look(tmp_path / "copy") == look(new.path)
    assert (tmp_path / "copy/same/one").stat().st_ino == (base.path / "same/one").stat().st_ino
    assert checking.verify(base.manifest, base.path, deep=True) == []


def test_copies_that_an_earlier_attempt_made_where_it_could_not_link_are_no_hindrance(
    tmp_path: Path, new: Version, base: Base
) -> None:
    for name in ("same/one", "same/two", "same/empty"):
        (base.path / name).chmod(0o644)
    earlier = Assembler(tmp_path / "copy", new.manifest, [base])
    earlier.prepare()
    earlier.reuse()
    earlier.close()
    assert (tmp_path / "copy/same/one").is_file()
    stage(new, tmp_path / "copy", base)
    assert look(tmp_path / "copy") == look(new.path)
    assert (tmp_path / "copy/same/one").stat().st_ino != (base.path / "same/one").stat().st_ino


def test_what_is_no_file_at_all_is_cleared_away(tmp_path: Path, new: Version, base: Base) -> None:
    copy = tmp_path / "copy"
    (copy / "same").mkdir(parents=True)
    for name in ("large", "same/one", "stray"):
        os.mkfifo(copy / name)
    os.mknod(copy / "changed", stat.S_IFSOCK | 0o600)
    stage(new, copy, base)
    assert look(copy) == look(new.path)


def test_nothing_outside_is_touched_by_links_in_the_way(tmp_path: Path, new: Version, base: Base) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_bytes(b"mine")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "same").symlink_to(outside)
    (copy / "new").symlink_to(outside)
    (copy / "large").symlink_to(outside / "one")
    (copy / "changed").symlink_to(outside / "never")
    (copy / "stray").mkdir()
    (copy / "stray/away").symlink_to(outside)
    (copy / "stray").chmod(0o555)
    stage(new, copy, base)
    assert look(copy) == look(new.path)
    assert look(outside).keys() == {b"one"}
    assert (outside / "one").read_bytes() == b"mine"


def test_a_file_of_another_version_is_replaced_and_not_written_to(tmp_path: Path, new: Version, base: Base) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    # As if an attempt had linked, and the base were lost to the next one: the name is the same, the bytes are not.
    (copy / "large").hardlink_to(base.path / "large")
    (copy / "changed").hardlink_to(base.path / "changed")
    before = look(base.path)
    stage(new, copy)
    assert look(copy) == look(new.path)
    assert look(base.path) == before


def test_a_full_disk_is_foreseen(tmp_path: Path, new: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize, f_files, f_favail = 1000, 4096, real.f_files, real.f_favail

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    assembler = Assembler(tmp_path / "copy", new.manifest)
    with pytest.raises(Unavailable, match=r"expected 16\.. MB free .* 4\.1 MB are"):
        assembler.prepare()
    assembler.close()


def prepare_and_take(assembler: Assembler, version: Version) -> None:
    assembler.prepare()
    assembler.take(version.chunks())


@pytest.mark.parametrize("call", ["write", "posix_fallocate", "pwrite", "mkdir", "symlink"])
def test_a_disk_that_fills_up_is_unavailable_and_later_taken_up(tmp_path: Path, new: Version, call: str) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, full)
        assembler = Assembler(tmp_path / "copy", new.manifest)
        with pytest.raises(Unavailable, match="free some space"):
            prepare_and_take(assembler, new)
        assembler.close()
    assert look(stage(new, tmp_path / "copy")) == look(new.path)


def test_a_cancelled_assembly_stops(tmp_path: Path, new: Version, base: Base) -> None:
    assembler = Assembler(tmp_path / "copy", new.manifest, [base], workers=2)
    assembler.prepare()
    assembler.cancel()
    for method in (assembler.reuse, assembler.finish, lambda: assembler.take(new.chunks())):
        with pytest.raises(Cancelled):
            method()
    assembler.close()


def test_large_steps_are_shared_by_threads(tmp_path: Path) -> None:
    nodes: dict[bytes, Node] = {b"d%d/f%d" % (i % 7, i): File(b"%d" % i * 50) for i in range(900)}
    before = grow(tmp_path / "before", nodes)
    for i in range(0, 900, 9):
        nodes[b"d%d/f%d" % (i % 7, i)] = File(b"%d" % i * 50 + b"changed")
    after = grow(tmp_path / "after", nodes)
    base = Base(before.manifest, stage(before, tmp_path / "base", workers=4))
    copy = stage(after, tmp_path / "copy", base, workers=4)
    assert look(copy) == look(after.path)
