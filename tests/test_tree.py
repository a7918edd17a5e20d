"""Reading a directory: every name and file survives, faults are told at once, what does not hold still is refused."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.cutting import Cutting
from farmsyncd.core.snapshot import Entry, Kind, Manifest, decode
from farmsyncd.edges.content import filereading, tree
from farmsyncd.edges.content.treecache import TreeCache
from farmsyncd.errors import BadInput
from tests.trees import file_entry, plant

ODD = {
    b"sp ace": b"1",
    b"new\nline/in": b"2",
    b"\xff\xfe\x80/\xfd": b"3",
    "größe/日本".encode(): b"4",
    b"-rf": b"5",
    b"...": b"6",
}
LARGE = Cutting(minimum=256, average=1024, maximum=4096, whole=1024)
NOW_NS = 1_800_000_000 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "site", {})


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


def entry(manifest: Manifest, path: bytes) -> Entry:
    return next(found for found in manifest.entries if found.path == path)


def test_any_name_survives(root: Path) -> None:
    manifest = tree.scan(plant(root, ODD)).manifest
    files = {found.path: found.chunks for found in manifest.entries if found.kind is Kind.FILE}
    assert files == {path: (digest_of(content),) for path, content in ODD.items()}
    assert decode(manifest.encode()) == manifest


def test_modes_times_links_and_empty_things_are_kept(root: Path) -> None:
    plant(root, {"bin/run": b"#!", "empty": b"", "nothing": None, "deep/er/still": None})
    (root / "bin/run").chmod(0o755)
    os.utime(root / "bin/run", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "empty", ns=(0, -5_000_000_000))
    (root / "bin/again").symlink_to("../bin/./run")
    (root / "dangling").symlink_to("not/here")
    manifest = tree.scan(root).manifest
    assert entry(manifest, b"bin/run") == file_entry(
        b"bin/run", b"#!", mode_exec=True, mtime_ns=1_234_567_890_123_456_789
    )
    assert entry(manifest, b"empty") == file_entry(b"empty", mtime_ns=-5_000_000_000)
    assert entry(manifest, b"bin/again") == Entry(b"bin/again", Kind.LINK, target=b"../bin/./run")
    assert entry(manifest, b"dangling") == Entry(b"dangling", Kind.LINK, target=b"not/here")
    directories = [found.path for found in manifest.entries if found.kind is Kind.DIR]
    assert directories == [b"bin", b"deep", b"deep/er", b"deep/er/still", b"nothing"]


def test_an_empty_directory_is_a_tree(root: Path) -> None:
    assert tree.scan(root).manifest.entries == ()


def test_equal_trees_in_different_places_are_one_version(tmp_path: Path) -> None:
    versions: list[str] = []
    for place in ("one", "two"):
        site = plant(tmp_path / place, {"a/b": b"b", "c": b"c"})
        for name in ("a/b", "c"):
            os.utime(site / name, ns=(1, 2))
        os.utime(site / "a", ns=(1, len(versions)))  # when a directory's names changed is no part of a version
        versions.append(tree.scan(site).manifest.version)
    assert versions[0] == versions[1]


def test_large_files_are_cut_and_progress_is_told(root: Path) -> None:
    data = random.Random(1).randbytes(50_000)
    told: list[tuple[int, int]] = []
    plant(root, {"large": data, "small": b"s"})
    manifest = tree.scan(root, lambda *done: told.append(done), cutting=LARGE, threads=3).manifest
    large = entry(manifest, b"large")
    assert len(large.chunks) > 10
    assert large.size == 50_000
    at = 0
    for digest, length in zip(large.chunks, large.lengths, strict=True):
        assert digest == digest_of(data[at : at + length])
        at += length
    assert told[-1] == (2, 50_001)
    assert told == sorted(told)


def test_a_source_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(plant(root, {"a": b"a"}))
    assert tree.scan(tmp_path / "current").manifest == tree.scan(root).manifest


@pytest.mark.parametrize("name", ["missing", "file", "file/below"])
def test_a_source_that_is_no_directory_is_bad_input(root: Path, name: str) -> None:
    plant(root, {"file": b"f"})
    with pytest.raises(BadInput, match="expected a directory at .*" + name):
        tree.scan(root / name)


def test_all_faults_are_told_at_once(root: Path) -> None:
    plant(root, {"fine": b"f", "d": None})
    os.mkfifo(root / "pipe")
    (root / "out").symlink_to("../elsewhere")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "d/up").symlink_to("../../x")
    with socket.socket(socket.AF_UNIX) as listening:
        directory = os.open(root, os.O_PATH)
        listening.bind(f"/proc/self/fd/{directory}/talk")  # a socket's path has to be short
        os.close(directory)
        with pytest.raises(BadInput) as told:
            tree.scan(root)
    text = str(told.value)
    assert "5 faults" in text
    for part in ("pipe: ", "named pipe", "talk: ", "socket", "out: ", "../elsewhere", "absolute: ", "d/up: ", "inside"):
        assert part in text
    assert "fine" not in text


def test_a_name_that_is_told_is_one_line_and_commands_no_terminal(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\x1b[31mred\nline \xff \xc3\xa9")).symlink_to("/etc/\x1b]0;owned\x07")
    with pytest.raises(BadInput) as told:
        tree.scan(root)
    assert ": \\x1b[31mred\\nline \\udcff \u00e9: expected a link that stays inside the tree" in str(told.value)
    assert "it leads to /etc/\\x1b]0;owned\\x07; " in str(told.value)


def test_twenty_faults_are_named_and_the_others_counted(root: Path) -> None:
    for number in range(30):
        (root / f"link{number}").symlink_to("/")
    with pytest.raises(BadInput, match="30 faults") as told:
        tree.scan(root)
    assert str(told.value).count("expected a link") == 20
    assert "and 10 more" in str(told.value)


def test_what_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"open": b"1", "closed": b"2", "closed too": b"3"})
    real = os.open

    def refusing(path: bytes, flags: int, *more: int) -> int:
        if b"closed" in bytes(path):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(BadInput, match="2 faults") as told:
        tree.scan(root)
    assert "closed: cannot be read: Permission denied" in str(told.value)
    assert "closed too: cannot be read" in str(told.value)


def after_reading(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], times: int) -> None:
    """Have ``do`` happen just after each of the next ``times`` reads of a small file."""
    real = os.read
    left = [times]

    def read(fd: int, size: int) -> bytes:
        data = real(fd, size)
        if left[0]:
            left[0] -= 1
            do()
        return data

    monkeypatch.setattr(os, "read", read)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def test_a_file_that_changed_while_it_was_read_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"log": b"first"})
    after_reading(monkeypatch, lambda: grow(root / "log"), 2)
    manifest = tree.scan(root).manifest
    assert entry(manifest, b"log").chunks == (digest_of(b"firstmoremore"),)


def test_a_file_that_never_holds_still_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"log": b"first"})
    after_reading(monkeypatch, lambda: grow(root / "log"), 100)
    with pytest.raises(BadInput, match="log: it changes while it is read"):
        tree.scan(root)


def test_a_file_that_is_replaced_by_a_link_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"a": b"a", "b": b"b"})

    def swap() -> None:
        for name in ("a", "b"):
            (root / name).unlink()
            (root / name).symlink_to("/etc/passwd")

    after_reading(monkeypatch, swap, 1)
    with pytest.raises(BadInput):
        tree.scan(root, threads=1)


def test_names_that_come_while_a_tree_is_read_are_read_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"sub/a": b"a"})
    os.utime(root / "sub", ns=(1, 1))
    after_reading(monkeypatch, lambda: (root / "sub/b").write_bytes(b"b"), 1)
    assert entry(tree.scan(root).manifest, b"sub/b").size == 1


def test_a_name_that_vanishes_before_it_is_looked_at_is_no_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"sub/a": b"a"})
    (root / "sub/link").symlink_to("a")
    real = os.readlink

    def readlink(path: bytes) -> bytes:
        Path(os.fsdecode(path)).unlink()
        return real(path)

    monkeypatch.setattr(os, "readlink", readlink)
    assert [found.path for found in tree.scan(root).manifest.entries] == [b"sub", b"sub/a"]


def test_a_source_that_vanishes_is_never_taken_for_an_empty_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"a": b"a"})
    real = os.scandir

    def scandir(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        (root / "a").unlink(missing_ok=True)
        root.rmdir()
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInput):
        tree.scan(root)


def test_a_tree_in_which_names_never_rest_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"sub/a": b"a"})
    numbers = iter(range(100))

    def restless() -> None:
        os.utime(root / "sub", ns=(1, next(numbers)))

    after_reading(monkeypatch, restless, 100)
    with pytest.raises(BadInput, match="sub: files come and go"):
        tree.scan(root)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that are opened from now on."""
    opened: list[bytes] = []
    real = filereading.FileReader.read

    def read(self: filereading.FileReader, path: bytes) -> filereading.Read:
        opened.append(path.rpartition(b"/")[2])
        return real(self, path)

    monkeypatch.setattr(filereading.FileReader, "read", read)
    return opened


def cache(tmp_path: Path, now_ns: int | None = None) -> TreeCache:
    """The cache, in a file; by a clock that is far ahead, unless said otherwise."""
    later = 2 * NOW_NS if now_ns is None else now_ns
    return TreeCache(tmp_path / "cache" / "site", lambda: later)


def test_only_what_changed_is_read_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root, {"a": b"a", "b": b"b", "d/c": b"c"})
    first = tree.scan(root, cache=cache(tmp_path)).manifest
    opened = counted(monkeypatch)
    assert tree.scan(root, cache=cache(tmp_path)).manifest == first
    assert opened == []
    (root / "b").write_bytes(b"new b")
    (root / "a").chmod(0o755)
    again = tree.scan(root, cache=cache(tmp_path)).manifest
    assert b"b" in opened
    assert b"c" not in opened
    assert again == tree.scan(root).manifest


def test_a_file_that_changed_just_now_is_not_trusted(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(root, {"a": b"a"})
    just_after = (root / "a").stat().st_ctime_ns + 10**9
    tree.scan(root, cache=cache(tmp_path, just_after))
    opened = counted(monkeypatch)
    tree.scan(root, cache=cache(tmp_path, just_after))
    assert opened == [b"a"]


@pytest.mark.parametrize("spoil", [b"", b"garbage", b"\0" * 100])
def test_a_spoiled_cache_costs_time_and_nothing_else(root: Path, tmp_path: Path, spoil: bytes) -> None:
    plant(root, {"a": b"a"})
    kept = cache(tmp_path)
    expected = tree.scan(root, cache=kept).manifest
    data = kept.file.read_bytes()
    for spoiled in (spoil, data[:-1], data[:40] + bytes([data[40] ^ 1]) + data[41:]):
        kept.file.write_bytes(spoiled)
        assert tree.scan(root, cache=cache(tmp_path)).manifest == expected


def test_a_cache_is_for_one_tree_and_one_cutting(root: Path, tmp_path: Path) -> None:
    other = plant(tmp_path / "other", {"a": b"other"})
    plant(root, {"a": b"x" * 5000})
    kept = cache(tmp_path)
    tree.scan(root, cache=kept)
    assert tree.scan(other, cache=kept).manifest == tree.scan(other).manifest
    tree.scan(root, cache=kept)
    assert tree.scan(root, cache=kept, cutting=LARGE).manifest == tree.scan(root, cutting=LARGE).manifest
    assert TreeCache.of(tmp_path, root).file != TreeCache.of(tmp_path, other).file


def test_a_cache_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path) -> None:
    plant(root, {"a": b"a"})
    plant(tmp_path, {"cache": b"a file where the directory should be"})
    assert tree.scan(root, cache=cache(tmp_path)).manifest == tree.scan(root).manifest
