"""Settling: the disk is set to work in time, and nothing that it fails at is forgotten."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmsyncd.edges.content import durable
from farmsyncd.edges.content.settling import Settling


class Disk:
    """Counts how often it is synced, and fails when it is told to."""

    def __init__(self) -> None:
        self.syncs = 0
        self.fails = False

    def sync(self, _fd: int) -> None:
        self.syncs += 1
        if self.fails:
            self.fails = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(durable, "sync_file_system", disk.sync)
    return disk


@pytest.fixture
def settling(disk: Disk) -> Iterator[Settling]:
    settling = Settling(0, gathered=100)
    yield settling
    settling.close()


def test_the_disk_is_set_to_work_when_enough_has_gathered(settling: Settling, disk: Disk) -> None:
    settling.wrote(99)
    settling.close()
    assert disk.syncs == 0
    settling.wrote(1)
    settling.close()
    assert disk.syncs == 1
    settling.settle()
    assert disk.syncs == 2


def test_what_the_disk_failed_at_early_is_told_later(settling: Settling, disk: Disk) -> None:
    disk.fails = True
    settling.wrote(100)
    settling.close()
    with pytest.raises(OSError, match="Input/output error"):
        settling.settle()


def test_what_the_disk_failed_at_is_told_with_the_next_bytes(settling: Settling, disk: Disk) -> None:
    disk.fails = True
    settling.wrote(100)
    settling.close()
    with pytest.raises(OSError, match="Input/output error"):
        settling.wrote(100)


def test_a_real_file_system_is_synced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    fd = os.open(tmp_path, os.O_RDONLY)
    settling = Settling(fd, gathered=1)
    try:
        settling.wrote(4)
        settling.settle()
    finally:
        settling.close()
        os.close(fd)
