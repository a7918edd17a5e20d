"""What lies in a staging directory already is taken for nothing that it is not, and writing fails half-done or not."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

import pytest

from farmsyncd.core import delta
from farmsyncd.core.chunks import Damaged
from farmsyncd.core.delta import Bundle
from farmsyncd.edges.content.assembly import Assembler, Base
from farmsyncd.edges.content.growing import EXEC_MODE, FILE_MODE, GrowingTree
from farmsyncd.errors import Unavailable
from tests.versions import TIME, File, LinkTo, Node, Version, grow, look, stage

LARGE = random.Random(5).randbytes(30_000)
NEW: dict[bytes, Node] = {
    b"large": File(LARGE),
    b"link": LinkTo(b"small"),
    b"small": File(b"small", executable=True),
}


@pytest.fixture
def new(tmp_path: Path) -> Version:
    return grow(tmp_path / "new", NEW)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    path.mkdir()
    return path


def left(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """A file as an earlier attempt could have left it."""
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, ns=(TIME, TIME))


def test_a_file_that_goes_on_behind_the_right_bytes_is_not_the_right_one(new: Version, copy: Path) -> None:
    left(copy / "small", b"small and more", EXEC_MODE)
    left(copy / "large", LARGE + b"more")
    assert look(stage(new, copy)) == look(new.path)


def test_a_link_that_leads_elsewhere_is_made_anew(new: Version, copy: Path) -> None:
    (copy / "link").symlink_to("large")
    assert look(stage(new, copy)) == look(new.path)


@pytest.mark.parametrize("data", [LARGE[:-10] + bytes(10), LARGE], ids=["in part", "all of it"])
def test_a_file_with_another_name_elsewhere_is_neither_written_to_nor_given_another_mode(
    new: Version, copy: Path, tmp_path: Path, data: bytes
) -> None:
    elsewhere = tmp_path / "elsewhere"
    left(elsewhere, data, 0o640)
    os.utime(elsewhere, ns=(7, 7))
    (copy / "large").hardlink_to(elsewhere)
    assert look(stage(new, copy)) == look(new.path)
    found = elsewhere.stat()
    assert (elsewhere.read_bytes(), stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (data, 0o640, 7)


def test_a_link_to_a_file_that_another_one_has_taken_the_name_of_is_not_kept(tmp_path: Path, copy: Path) -> None:
    """Links are made ahead to ``one`` and ``two``; then ``two`` is published as ``one``, with its time."""
    old = grow(tmp_path / "old", {b"one": File(b"first"), b"two": File(b"other")})
    base = Base(old.manifest, stage(old, tmp_path / "base"))
    new = grow(tmp_path / "new", {b"one": File(b"other")})
    (copy / "one").hardlink_to(base.path / "one")
    (copy / "two").hardlink_to(base.path / "two")
    assert look(stage(new, copy, base)) == look(new.path)
    assert (copy / "one").stat().st_ino == (base.path / "two").stat().st_ino
    assert look(base.path) == look(old.path)


def test_a_base_file_with_another_time_is_not_linked(new: Version, copy: Path, tmp_path: Path) -> None:
    base = Base(new.manifest, stage(new, tmp_path / "base"))
    os.utime(base.path / "large", ns=(7, 7))
    assert look(stage(new, copy, base)) == look(new.path)


def test_a_file_that_is_taken_up_can_be_written_to(copy: Path, new: Version) -> None:
    entry = next(one for one in new.manifest.entries if one.path == b"large")
    left(copy / "large", bytes(len(LARGE)))
    tree = GrowingTree(copy)
    tree.lay_out(entry, 1, there=True)
    tree.close()
    assert (copy / "large").stat().st_mode & stat.S_IWUSR


def test_a_kernel_that_takes_few_bytes_at_a_time_gets_them_all(
    new: Version, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    assert look(stage(new, copy)) == look(new.path)


def full(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_there_is_no_room_for_leaves_nothing(
    new: Version, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", full)
    assembler = Assembler(copy, new.manifest)
    with pytest.raises(Unavailable):
        assembler.prepare()
    assembler.close()
    assert not (copy / "large").exists()


def test_what_could_not_be_written_is_still_lacking_and_can_be_taken_again(new: Version, copy: Path) -> None:
    assembler = Assembler(copy, new.manifest, workers=1)
    assembler.prepare()
    lacking = assembler.lacking()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(os, "write", full)
        for number in lacking:
            with pytest.raises(Unavailable):
                assembler.take(new.chunks([number]))
    assert assembler.lacking() == lacking
    assembler.take(new.chunks(lacking))
    assembler.finish()
    assembler.close()
    assert look(copy) == look(new.path)


def test_a_difference_that_makes_other_bytes_than_were_published_is_refused(
    new: Version, copy: Path, tmp_path: Path
) -> None:
    old = grow(tmp_path / "old", {b"small": File(b"older")})
    base = Base(old.manifest, stage(old, tmp_path / "base"))
    assembler = Assembler(copy, new.manifest, [base])
    assembler.prepare()
    number, length = next(one for one in enumerate(size for _digest, size in new.manifest.distinct_chunks()))
    with pytest.raises(Damaged, match="others than were published"):
        assembler.apply([Bundle((number,), (0,), delta.pack(bytes(length), b"older"))])
    assert number in assembler.lacking()
    assembler.close()
