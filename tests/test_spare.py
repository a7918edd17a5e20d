"""Links made ahead for the next version: of use when they are there, and never in the way of anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content import checking
from farmsyncd.node.staging.spare import Spare
from farmsyncd.node.staging.work import Hush, Work
from tests.fake_data_server import Published, published

OLD = {"same/one": b"one", "same/two": b"two", "same/gone": b"gone", "moved": b"moved", "changed": b"old", "deep": b"d"}
NEW = {
    "same/one": b"one",
    "same/two": b"two",
    "else/moved": b"moved",
    "changed": b"new!",
    "deep/er": b"",
    "added": b"a",
}


def copied(cache: CacheDir, one: Published, bases: tuple[Manifest, ...] = (), spare: Spare | None = None) -> None:
    """Stage a version."""
    work = Work(one.version, cache, bases, Hush(), spare)
    if not work.resume():
        work._begin(one.manifest)
    lacking = work.lacking()
    work.reuse()
    distinct = one.manifest.distinct_chunks()
    chunks = [(digest, length) for digest, length in (distinct[number] for number in lacking)]
    work.take_chunks([Chunk(digest, "raw", length, one.chunks[digest]) for digest, length in chunks])
    work.finish()
    work.close()


@attrs.frozen
class Scene:
    """A node's disk with the old version on it."""

    cache: CacheDir
    old: Published
    new: Published
    spare: Spare

    def is_whole(self, one: Published) -> bool:
        """Whether a version on the disk is what was published, byte for byte."""
        return not checking.verify(one.manifest, self.cache.version_path(one.version), deep=True)

    def stage(self) -> None:
        """Stage the new version as a node does, with what links there are."""
        copied(self.cache, self.new, (self.old.manifest,), self.spare)


def spares(cache: CacheDir) -> list[str]:
    """To which versions links were made ahead."""
    return [path.name for path in cache.path.glob("spare/*")]


def nothing(_amount: int) -> None:
    pass


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    cache = CacheDir(tmp_path / "shop")
    old = published(OLD)
    copied(cache, old)
    cache.point_link(old.version)
    return Scene(cache, old, published(NEW), Spare(cache, nothing, worth_it=1))


def test_a_version_is_assembled_in_the_links_that_were_made_ahead(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.spare.make(scene.old.manifest)
    links = scene.cache.spare_path(scene.old.version)
    assert (links / "changed").stat().st_nlink == 2
    assert scene.cache.versions() == [scene.old.version]
    assert scene.cache.stagings() == []
    made: list[str] = []
    real = os.link

    def noted(name: bytes, new: bytes, **more: Any) -> None:
        made.append(os.fsdecode(new))
        real(name, new, **more)

    monkeypatch.setattr(os, "link", noted)
    scene.stage()
    assert made == ["moved"], "what was linked ahead is not linked again"
    assert not links.exists()
    assert scene.is_whole(scene.new)
    assert scene.is_whole(scene.old), "the version that is linked to stays as it is"
    new, old = (scene.cache.version_path(one.version) for one in (scene.new, scene.old))
    assert (new / "same/one").stat().st_ino == (old / "same/one").stat().st_ino
    assert (new / "changed").stat().st_ino != (old / "changed").stat().st_ino


def test_links_may_be_made_ahead_again_and_again(scene: Scene) -> None:
    scene.spare.make(scene.old.manifest)
    scene.spare.make(scene.old.manifest)
    scene.stage()
    scene.cache.point_link(scene.new.version)
    scene.spare.make(scene.new.manifest)
    assert spares(scene.cache) == [scene.new.version]
    scene.spare.make(scene.old.manifest)
    assert spares(scene.cache) == [scene.old.version], "only those to the active version are kept"


def test_small_versions_are_not_linked_ahead(scene: Scene) -> None:
    scene.spare.make(scene.old.manifest)
    Spare(scene.cache, nothing).make(scene.old.manifest)
    assert scene.cache.spare_path(scene.old.version).is_dir(), "it is right, and costs nothing more"
    Spare(scene.cache, nothing).make(scene.new.manifest)
    assert spares(scene.cache) == []


def test_where_no_links_can_be_made_nothing_is_copied_ahead(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise PermissionError(1, "no links here")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        scene.spare.make(scene.old.manifest)
    spare = scene.cache.spare_path(scene.old.version)
    assert not [name for _, _, names in os.walk(spare) for name in names]
    scene.stage()
    assert scene.is_whole(scene.new)


def test_without_room_there_are_no_links_and_no_failure(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(scene.cache.path)

    class Full:
        f_bavail, f_frsize, f_files, f_favail = 10, 4096, real.f_files, real.f_favail

    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _path: Full)
        scene.spare.make(scene.old.manifest)
    assert spares(scene.cache) == []


def test_links_to_files_that_have_been_replaced_since_are_not_believed(scene: Scene) -> None:
    scene.spare.make(scene.old.manifest)
    version = scene.cache.version_path(scene.old.version)
    for directory in (version, version / "same"):
        directory.chmod(0o755)
    spoilt = scene.cache.spare_path(scene.old.version) / "same/two"
    spoilt.unlink()
    spoilt.write_bytes(b"TWO")
    scene.stage()
    assert scene.is_whole(scene.new)


def _whole_farm_of_steps(scene: Scene) -> None:
    scene.spare.make(scene.old.manifest)
    scene.stage()
    scene.cache.point_link(scene.new.version)
    scene.spare.make(scene.new.manifest)
    scene.cache.discard_spares()


STEPS = ("mkdir", "link", "rename", "unlink", "open", "chmod", "fchmod", "utime", "rmdir")


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", STEPS)
def test_a_node_killed_at_any_step_starts_with_what_it_served_and_stages_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real: Callable[..., object] = getattr(os, step)
    after = 0
    done = False
    while not done:
        cache = CacheDir(tmp_path / str(after) / "shop")
        old, new = published(OLD), published(NEW)
        copied(cache, old)
        cache.point_link(old.version)
        scene = Scene(cache, old, new, Spare(cache, nothing, worth_it=1))
        left = after

        def burn(*arguments: object, real: Callable[..., object] = real, **more: object) -> object:
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed
            return real(*arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(os, step, burn)
            try:
                _whole_farm_of_steps(scene)
            except Killed:
                pass
            else:
                done = True
        again = CacheDir(cache.path)
        again.recover()
        assert set(spares(again)) <= {again.active_link()}
        assert scene.is_whole(old)
        found = attrs.evolve(scene, cache=again, spare=Spare(again, nothing, worth_it=1))
        if not again.has(new.version):
            found.stage()  # in whatever links there are
        found.spare.make(old.manifest)
        assert found.is_whole(new)
        assert scene.is_whole(old)
        after += 3
