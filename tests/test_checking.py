"""A tree on disk against its manifest: whatever became of it is found and named."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from farmsyncd.edges.content import checking
from tests.versions import File, LinkTo, Node, Version, grow, stage

TREE: dict[bytes, Node] = {
    b"dir/a": File(b"a" * 100),
    b"dir/large": File(random.Random(3).randbytes(20_000)),
    b"empty": File(),
    b"nothing in it": None,
    b"run": File(b"#!", executable=True),
    b"link": LinkTo(b"dir/a"),
    b"\xff": File(b"odd"),
}


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return grow(tmp_path / "source", TREE)


@pytest.fixture
def copy(tmp_path: Path, version: Version) -> Path:
    return stage(version, tmp_path / "copy")


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_tree_is_sound(version: Version, copy: Path, deep: bool) -> None:
    assert checking.verify(version.manifest, copy, deep=deep) == []


def rewritten(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def shortened(path: Path) -> None:
    """One byte less, and otherwise as it was."""
    status = path.stat()
    rewritten(path, path.read_bytes()[:-1])
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def replaced(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("do", "found"),
    [
        (lambda copy: rewritten(copy / "dir/a", b"b" * 100), [b"dir/a"]),
        (lambda copy: (copy / "dir/a").unlink(), [b"dir/a"]),
        (lambda copy: shortened(copy / "dir/large"), [b"dir/large"]),
        (lambda copy: os.utime(copy / "empty", ns=(5, 5)), [b"empty"]),
        (lambda copy: (copy / "run").chmod(0o444), [b"run"]),
        (lambda copy: (copy / "empty").chmod(0o644), [b"empty"]),
        (lambda copy: (copy / "nothing in it").rmdir(), [b"nothing in it"]),
        (lambda copy: (copy / "nothing in it").chmod(0o755), [b"nothing in it"]),
        (lambda copy: (copy / "stray").write_bytes(b""), [b"stray"]),
        (lambda copy: replaced(copy / "link", "empty"), [b"link"]),
        (lambda copy: replaced(copy / "dir/a", "large"), [b"dir/a"]),
        (lambda copy: (copy / "dir").rename(copy / "other"), [b"dir", b"dir/a", b"dir/large", b"other"]),
        (lambda copy: (copy / "nothing in it").rename(copy / "x"), [b"nothing in it", b"x"]),
    ],
)
def test_what_became_of_it_is_found_at_a_glance(
    version: Version, copy: Path, do: Callable[[Path], object], found: list[bytes]
) -> None:
    for directory in (copy, copy / "dir"):
        directory.chmod(0o755)
    do(copy)
    for directory in (copy, copy / "dir"):
        if directory.exists():
            directory.chmod(0o555)
    assert checking.verify(version.manifest, copy) == found


@pytest.mark.parametrize("name", ["dir/large", "dir/a", "run"])
def test_bytes_that_changed_unseen_are_found_by_reading(version: Version, copy: Path, name: str) -> None:
    path = copy / name
    status = path.stat()
    content = path.read_bytes()
    rewritten(path, content[:1] + b"#" + content[2:] if name != "run" else b"##")
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert checking.verify(version.manifest, copy) == []
    assert checking.verify(version.manifest, copy, deep=True) == [name.encode()]


def test_a_tree_that_is_not_there_is_named_as_a_whole(tmp_path: Path, version: Version) -> None:
    assert checking.verify(version.manifest, tmp_path / "missing") == [b""]
    (tmp_path / "file").touch()
    assert checking.verify(version.manifest, tmp_path / "file") == [b""]


def test_reading_can_be_slowed_down_or_given_up(version: Version, copy: Path) -> None:
    read: list[int] = []
    assert checking.verify(version.manifest, copy, deep=True, throttle=read.append) == []
    assert sum(read) == version.manifest.total_bytes

    class Enough(Exception):
        pass

    def give_up(_amount: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        checking.verify(version.manifest, copy, deep=True, throttle=give_up)
