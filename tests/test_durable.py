"""What counts as kept has been made durable before: a kill shows nothing of that, only a power cut would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from farmsyncd.core.chunks import digest_of
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.packs import ChunkStore
from tests.versions import File, grow, stage

Told = list[tuple[str, str]]


def name_of(what: Any) -> str:
    """The last part of the path of an open file, or of a path."""
    path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(os.fsdecode(what))
    return path.name


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the system was told to do that matters after a power cut, with the last part of each path, in order."""
    calls: Told = []

    def watch(module: Any, call: str) -> None:
        real = getattr(module, call)

        def watched(what: Any, *arguments: Any, **more: Any) -> Any:
            calls.append((call, name_of(what)))
            return real(what, *arguments, **more)

        monkeypatch.setattr(module, call, watched)

    for call in ("fsync", "writev", "write", "pwrite", "replace", "rename", "fchmod"):
        watch(os, call)
    watch(durable, "sync_file_system")
    return calls


def test_a_file_is_durable_before_it_takes_its_name_and_then_the_name_is(told: Told, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    told.clear()
    durable.write_file(tmp_path / "here/file", b"some", b"bytes")
    assert told == [("writev", "file.new"), ("fsync", "file.new"), ("replace", "file.new"), ("fsync", "here")]


def test_a_pack_is_durable_before_its_index_says_what_is_in_it(told: Told, tmp_path: Path) -> None:
    store = ChunkStore(tmp_path / "packs")
    told.clear()
    with store.writer() as writer:
        writer.put(digest_of(b"some bytes"), "raw", 10, b"some bytes")
    pack, index = "0000000001.pack", "0000000001.index.new"
    written = [*[("writev", pack), ("fsync", pack)], *[("writev", index), ("fsync", index), ("replace", index)]]
    assert told == [*written, ("fsync", "packs")]


def test_a_version_is_durable_with_all_its_modes_before_it_is_adopted(told: Told, tmp_path: Path) -> None:
    version = grow(tmp_path / "site", {b"large": File(b"1" * 20_000), b"small": File(b"small")})
    cache = CacheDir(tmp_path / "shop")
    name = version.manifest.version
    told.clear()
    stage(version, cache.staging_path(name))
    assert told[-2:] == [("fchmod", name), ("sync_file_system", name)]
    told.clear()
    cache.adopt(name)
    assert told == [("rename", name), ("fsync", name), ("fsync", "versions"), ("fsync", "staging")]
