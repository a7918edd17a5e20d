"""One daemon per state directory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmsyncd.edges.statelock import InUse, lock
from farmsyncd.errors import ConfigError
from tests.daemons import environment

HOLDER = """
import sys, pathlib
from farmsyncd.edges.statelock import lock
lock(pathlib.Path(sys.argv[1]), "other")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_who_comes_is_told_who_has_it(tmp_path: Path) -> None:
    held = lock(tmp_path / "deep" / "state", "farmsync-node")
    with pytest.raises(ConfigError, match=rf"farmsync-node \(process {os.getpid()}\) is using it; stop that one"):
        lock(tmp_path / "deep" / "state", "farmsync-data")
    held.release()


def test_what_was_released_can_be_taken_again(tmp_path: Path) -> None:
    held = lock(tmp_path, "a")
    held.release()
    held.release()
    lock(tmp_path, "b").release()


def test_a_process_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(ConfigError, match=rf"other \(process {other.pid}\)"):
                lock(tmp_path, "mine")
        finally:
            other.kill()
    lock(tmp_path, "mine").release()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state directory that can be written at .*/file"):
        lock(tmp_path / "file", "x")
    with pytest.raises(ConfigError, match="Not a directory"):
        lock(tmp_path / "file" / "below", "x")


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    held = lock(tmp_path, "parent")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False):
        held.release()
        lock(tmp_path, "next").release()


def test_a_full_disk_keeps_nobody_from_its_own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("farmsyncd.edges.statelock.os.write", no_room)
        held = lock(tmp_path, "farmsync-node")
    with pytest.raises(InUse, match="another daemon is using it"):
        lock(tmp_path, "farmsync-data")
    held.release()
