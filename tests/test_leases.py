from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from farmsyncd.edges.cache import leases
from farmsyncd.edges.cache.cachedir import CacheDir
from tests.caches import add, files_of
from tests.daemons import environment

FILES = {"page": b"content"}


def test_many_may_share_and_one_may_have_it_alone(tmp_path: Path) -> None:
    first, second = leases.share(tmp_path), leases.share(tmp_path)
    assert first is not None
    assert second is not None
    assert leases.claim(tmp_path) is None
    assert leases.leased(tmp_path)
    first.release()
    assert leases.leased(tmp_path)
    second.release()
    second.release()  # no harm
    alone = leases.claim(tmp_path)
    assert alone is not None
    assert leases.claim(tmp_path) is None
    alone.release()
    assert not leases.leased(tmp_path)


def test_a_lease_goes_with_the_last_reference(tmp_path: Path) -> None:
    lease = leases.share(tmp_path)
    assert leases.leased(tmp_path)
    assert lease is not None
    del lease
    gc.collect()
    assert not leases.leased(tmp_path)


def test_what_is_not_there_cannot_be_leased(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("nothing", "file", "file/below"):
        assert leases.share(tmp_path / name) is None
        assert leases.claim(tmp_path / name) is None
        assert not leases.leased(tmp_path / name)


@pytest.mark.parametrize("another_there", [False, True])
def test_a_directory_that_was_moved_away_before_the_lock_is_not_leased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_there: bool
) -> None:
    """A reader has opened the directory, and does not come to lock it before the remover has moved it away."""
    place, moved = tmp_path / "version", tmp_path / "trash"
    place.mkdir()
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        place.rename(moved)
        if another_there:  # of that name, but not the one that was opened
            place.mkdir()
        flock(descriptor, how)

    with monkeypatch.context() as slow:
        slow.setattr(fcntl, "flock", late)
        assert leases.share(place) is None
    assert not leases.leased(moved)


def test_a_process_that_is_killed_leaves_no_lease(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from farmsyncd.edges.cache import leases
lease = leases.share(Path({str(tmp_path)!r}))
print("held", flush=True)
import time; time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        held = leases.leased(tmp_path)
        other.kill()
    assert held
    assert not leases.leased(tmp_path)


def test_readers_and_a_collector_race_and_no_reader_loses_its_files(tmp_path: Path) -> None:
    cache = CacheDir(tmp_path / "shop")
    version = add(cache, FILES)
    losses: list[object] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            lease = leases.share(cache.version_path(version))
            if lease is None:
                continue
            file = os.open("page", os.O_RDONLY, dir_fd=lease.descriptor)
            content = os.read(file, 100)
            os.close(file)
            if content != FILES["page"] or files_of(cache.version_path(version)) != FILES:
                losses.append(content)
            lease.release()

    def guarded() -> None:
        try:
            read()
        except OSError as error:
            losses.append(error)

    readers = [threading.Thread(target=guarded) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(300):
            if cache.remove(version):
                add(cache, FILES)
            time.sleep(0)  # let the readers have a turn
    finally:
        over.set()
        for reader in readers:
            reader.join(30)
    assert losses == []
    assert cache.remove(version), "with no reader left, it goes"
