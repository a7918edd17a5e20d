"""Large files that came in are read into memory: only those that are new, no more than fits, and never at any cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from farmsyncd.edges.content import readin, writeback
from tests.versions import File, Version, grow

NODES = {b"large/one": File(b"1" * 20_000), b"large/two": File(b"2" * 30_000), b"small": File(b"s" * 900)}
PLENTY = 1 << 40


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    monkeypatch.setattr(writeback, "LARGE", 10_000)
    monkeypatch.setattr(readin, "STEP", 4096)
    return grow(tmp_path / "version", NODES)


def nothing(_amount: int) -> None:
    pass


def test_large_files_are_read_in_step_by_step(version: Version) -> None:
    rests: list[int] = []
    assert readin.read_in(version.path, version.manifest, PLENTY, rests.append) == 50_000
    assert rests == [4096] * (5 + 8)


def test_files_that_another_version_has_too_are_left_alone(version: Version, tmp_path: Path) -> None:
    os.link(version.path / "large/one", tmp_path / "elsewhere")
    assert readin.read_in(version.path, version.manifest, PLENTY, nothing) == 30_000


def test_no_more_is_read_in_than_there_is_room_for(version: Version) -> None:
    assert readin.read_in(version.path, version.manifest, 30_000, nothing) == 20_000


def test_what_has_gone_or_is_no_file_is_passed_over(version: Version) -> None:
    (version.path / "large/one").unlink()
    (version.path / "large/one").symlink_to("two")
    (version.path / "large/two").unlink()
    assert readin.read_in(version.path, version.manifest, PLENTY, nothing) == 0


def test_a_quarter_of_the_memory_that_is_available_is_room(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  4000 kB\n")
    assert readin.room(meminfo) == 1000 * 1024


@pytest.mark.parametrize("text", ["", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_where_that_is_not_known_there_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert readin.room(tmp_path / "meminfo") == 0
    assert readin.room(tmp_path / "missing") == 0
