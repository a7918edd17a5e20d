from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from farmsyncd.edges.cache import leases
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.errors import LocalError
from tests.caches import add, files_of, stage, version_of
from tests.daemons import environment

OLD = {"prices.json": b"old prices", "img/logo.png": b"old logo"}
NEW = {"prices.json": b"new prices", "img/logo.png": b"new logo", "img/more/deep": b""}


@pytest.fixture
def cache(tmp_path: Path) -> CacheDir:
    return CacheDir(tmp_path / "shop")


def test_an_adopted_version_is_complete_and_read_only(cache: CacheDir) -> None:
    version = stage(cache, OLD)
    assert cache.stagings() == [version]
    assert not cache.has(version)
    cache.adopt(version)
    assert (cache.versions(), cache.stagings()) == ([version], [])
    assert files_of(cache.version_path(version)) == OLD
    assert stat.S_IMODE(cache.version_path(version).stat().st_mode) == 0o555
    assert cache.manifest(version) == b"manifest of " + version.encode()
    cache.adopt(version)  # again, after a crash: no harm
    assert cache.versions() == [version]


def test_there_must_be_something_to_adopt(cache: CacheDir) -> None:
    with pytest.raises(LocalError, match="stage it again"):
        cache.adopt("a" * 40)


def test_a_damaged_version_is_replaced_by_the_copy(cache: CacheDir) -> None:
    version = add(cache, OLD)
    damaged = cache.version_path(version) / "prices.json"
    damaged.chmod(0o644)
    damaged.write_bytes(b"rot")
    add(cache, OLD)
    assert files_of(cache.version_path(version)) == OLD
    assert list((cache.path / "trash").iterdir()) == []


def test_a_damaged_version_stays_whole_for_its_readers_until_the_next_start(cache: CacheDir) -> None:
    version = add(cache, OLD)
    lease = leases.share(cache.version_path(version))
    assert lease is not None
    add(cache, OLD)
    (rubbish,) = (cache.path / "trash").iterdir()
    assert files_of(rubbish) == OLD
    lease.release()
    cache.recover()
    assert list((cache.path / "trash").iterdir()) == []


def test_the_link_follows(cache: CacheDir) -> None:
    old, new = add(cache, OLD), add(cache, NEW)
    assert cache.active_link() is None
    cache.point_link(old)
    assert cache.active_link() == old
    assert files_of((cache.path / "active").resolve()) == OLD
    cache.prepare_link(new)
    assert cache.active_link() == old
    cache.point_link(new, durable=False)
    cache.settle()
    assert cache.active_link() == new
    assert (cache.path / "active").readlink() == Path("versions") / new
    assert not list(cache.path.glob("*.new"))


def test_another_version_than_the_prepared_one_can_become_active(cache: CacheDir) -> None:
    old, new = add(cache, OLD), add(cache, NEW)
    cache.prepare_link(old)
    cache.point_link(new)
    assert cache.active_link() == new


def test_the_link_never_points_to_what_is_not_there(cache: CacheDir) -> None:
    version = stage(cache, OLD)
    with pytest.raises(LocalError, match="stage it first"):
        cache.point_link(version)
    assert cache.active_link() is None


def test_a_directory_in_the_links_place_is_left_alone(cache: CacheDir) -> None:
    version = add(cache, OLD)
    (cache.path / "active").mkdir()
    with pytest.raises(LocalError, match="move it out of the way"):
        cache.active_link()
    with pytest.raises(LocalError, match="move it out of the way"):
        cache.point_link(version)


def test_removal_takes_all_of_a_version_and_nothing_of_others(cache: CacheDir) -> None:
    old, new = add(cache, OLD), add(cache, NEW)
    shared = cache.staging_path("c" * 40)
    shared.mkdir()
    (shared / "prices.json").hardlink_to(cache.version_path(old) / "prices.json")
    cache.adopt("c" * 40)
    assert cache.remove(old)
    assert cache.versions() == sorted([new, "c" * 40])
    assert cache.manifest(old) is None
    assert cache.manifest(new) is not None
    assert files_of(cache.version_path("c" * 40)) == {"prices.json": b"old prices"}
    assert stat.S_IMODE((cache.version_path("c" * 40) / "prices.json").stat().st_mode) == 0o444
    assert cache.remove(old), "what is gone can be removed again"


def test_a_leased_version_stays(cache: CacheDir) -> None:
    version = add(cache, OLD)
    lease = leases.share(cache.version_path(version))
    assert lease is not None
    assert cache.leased(version)
    assert not cache.remove(version)
    assert files_of(cache.version_path(version)) == OLD
    lease.release()
    assert not cache.leased(version)
    assert cache.remove(version)
    assert not cache.leased(version)


def test_a_version_on_its_way_in_can_be_given_up(cache: CacheDir) -> None:
    version = stage(cache, NEW)
    cache.discard_staging(version)
    assert (cache.stagings(), cache.manifest(version)) == ([], None)
    cache.discard_staging(version)


def test_recovery_keeps_what_is_staged_and_clears_the_rest(cache: CacheDir) -> None:
    active, staged = add(cache, OLD), stage(cache, NEW)
    cache.save_manifest("d" * 40, b"of a version that never came")
    (cache.path / "manifests" / "e.new").write_bytes(b"half")
    (cache.path / "active.new").symlink_to("nowhere")
    (cache.path / "trash" / "file").write_bytes(b"x")
    cache.version_path(active).chmod(0o755)
    again = CacheDir(cache.path)
    again.recover()
    assert (again.versions(), again.stagings()) == ([active], [staged])
    assert sorted(file.name for file in (cache.path / "manifests").iterdir()) == sorted([active, staged])
    assert not (cache.path / "active.new").is_symlink()
    assert stat.S_IMODE(cache.version_path(active).stat().st_mode) == 0o555


class _Killed(BaseException):
    """Stands for SIGKILL: no code below the test catches it."""


_CALLS = ("rename", "replace", "symlink", "unlink", "chmod", "fsync", "mkdir", "rmdir")


def _kill_before(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Raise _Killed instead of doing the ``number``-th call that changes the disk; the function tells how many came."""
    count = 0

    def wrap(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count >= number:
                raise _Killed
            return call(*arguments, **options)

        return counted

    for name in _CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return lambda: count


def _life(cache: CacheDir, old: str, new: str) -> None:
    """A version comes in, becomes active, and the one before goes."""
    cache.save_manifest(new, b"manifest of " + new.encode())
    cache.adopt(new)
    cache.prepare_link(new)
    cache.point_link(new)
    cache.remove(old)


def test_claim_s1_04_a_node_killed_at_any_step_has_one_whole_version_active(tmp_path: Path) -> None:
    steps = 0
    finished = False
    while not finished:
        steps += 1
        cache = CacheDir(tmp_path / str(steps))
        old = add(cache, OLD)
        cache.point_link(old)
        new = stage(cache, NEW)
        with pytest.MonkeyPatch.context() as patch:
            came = _kill_before(patch, steps)
            with contextlib.suppress(_Killed):
                _life(cache, old, new)
            finished = came() < steps
        again = CacheDir(cache.path)
        whole = {old: OLD, new: NEW}
        for moment in ("before recovery", "after recovery"):
            active = again.active_link()
            assert active in whole, (steps, moment)
            assert files_of((again.path / "active").resolve()) == whole[active], (steps, moment)
            for version in again.versions():
                assert files_of(again.version_path(version)) == whole[version], (steps, moment)
                assert again.manifest(version) is not None, (steps, moment)
            again.recover()
        assert sorted(entry.name for entry in again.path.iterdir()) == [
            "active",
            "manifests",
            "staging",
            "trash",
            "versions",
        ]
        assert list((again.path / "trash").iterdir()) == []
        _life(again, old, new)  # the same steps again lead to the end
        assert (again.active_link(), again.versions(), again.stagings()) == (new, [new], [])
    assert steps > 15


def test_recovery_itself_may_be_killed(tmp_path: Path) -> None:
    version = version_of(OLD)
    steps = 0
    finished = False
    while not finished:
        steps += 1
        cache = CacheDir(tmp_path / str(steps))
        add(cache, OLD)
        cache.point_link(version)
        rubbish = stage(cache, NEW)
        cache.staging_path(rubbish).rename(cache.path / "trash" / f"{rubbish}.1")
        (cache.path / "active.new").symlink_to("nowhere")
        with pytest.MonkeyPatch.context() as patch:
            came = _kill_before(patch, steps)
            with contextlib.suppress(_Killed):
                CacheDir(cache.path).recover()
            finished = came() < steps
        again = CacheDir(cache.path)
        again.recover()
        assert (again.active_link(), again.versions()) == (version, [version])
        assert list((cache.path / "trash").iterdir()) == []
        assert [file.name for file in (cache.path / "manifests").iterdir()] == [version]
    assert steps > 5


_AS_NOBODY = """
import os, sys
from pathlib import Path
from farmsyncd.edges.cache.cachedir import CacheDir
from tests.caches import add
if os.geteuid() == 0:  # only now: another user may not be allowed to read this Python
    os.chown(sys.argv[1], 65534, 65534)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
cache = CacheDir(Path(sys.argv[1]) / "shop")
old, new = add(cache, {"a/b/c": b"old"}), add(cache, {"a/b/c": b"new"})
cache.point_link(new)
assert not os.access(cache.version_path(old) / "a", os.W_OK)
assert cache.remove(old) and cache.versions() == [new]
add(cache, {"a/b/c": b"new"})
cache.recover()
assert not list((cache.path / "trash").iterdir())
"""


def test_read_only_trees_can_be_moved_and_removed_without_being_root() -> None:
    with tempfile.TemporaryDirectory() as place:  # not below a directory that only its owner may enter
        command = [sys.executable, "-c", _AS_NOBODY, place]
        told = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
