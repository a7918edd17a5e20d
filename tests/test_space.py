"""Space: what a version takes is known before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmsyncd.core.snapshot import Entry, Kind, Manifest
from farmsyncd.edges.content import space
from farmsyncd.edges.content.space import Need
from farmsyncd.errors import Unavailable
from tests.trees import file_entry

OLD = Manifest.of([Entry(b"d", Kind.DIR), file_entry(b"d/a", b"a" * 5000), file_entry(b"d/b", b"b")])
NEW = Manifest.of([Entry(b"d", Kind.DIR), file_entry(b"d/a", b"a" * 5000), file_entry(b"d/b", b"c")])


def test_whole_blocks_and_inodes_are_counted_and_links_are_free() -> None:
    assert space.required(NEW) == Need(4096 * (2 + 1 + 1), 3)
    assert space.required(NEW, [OLD]) == Need(4096 * 2, 2)
    assert space.required(NEW, [NEW]) == Need(4096, 1)


def test_what_is_free_is_asked_of_the_nearest_directory(tmp_path: Path) -> None:
    found = space.free(tmp_path / "not/yet/there")
    assert found.size > 0
    assert found.files > 0


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (Need(1 << 60, 1), r"expected 1152921\.5 TB free .* free .* or more"),
        (Need(0, 1 << 62), r"expected 4611686018427387904 free inodes"),
    ],
)
def test_too_much_is_unavailable_with_both_numbers(
    tmp_path: Path, need: Need, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk:
        f_bavail, f_frsize, f_files, f_favail = 100_000, 4096, 10, 10

    monkeypatch.setattr(os, "statvfs", lambda _path: Disk)
    space.foresee(Need(1000, 10), tmp_path)
    with pytest.raises(Unavailable, match=expected):
        space.foresee(need, tmp_path)


def test_a_file_system_without_inodes_has_enough_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        f_bavail, f_frsize, f_files, f_favail = 100_000, 4096, 0, 0

    monkeypatch.setattr(os, "statvfs", lambda _path: Disk)
    space.foresee(Need(0, 10**9), tmp_path)


def test_sizes_are_readable() -> None:
    sizes = [0, 999, 1000, 540_000_000, 5 * 10**15]
    assert list(map(space.readable, sizes)) == ["0 bytes", "999 bytes", "1.0 kB", "540.0 MB", "5000.0 TB"]
