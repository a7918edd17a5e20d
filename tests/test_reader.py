from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile
from farmsyncd.errors import Unavailable
from farmsyncd.reader import ActiveCache
from tests.caches import add, pointer

OLD = {"prices.json": b"old", "img/logo.png": b"old logo"}
NEW = {"prices.json": b"new", "img/logo.png": b"new logo", "more": b"more"}
HOUR_NS = 3600 * 10**9


class Clock:
    """The machine's clock, wound by hand."""

    def __init__(self) -> None:
        self.now_ns = HOUR_NS

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def directory(tmp_path: Path) -> CacheDir:
    return CacheDir(tmp_path / "shop")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_a_dataset_the_error_says_what_to_do(tmp_path: Path) -> None:
    cache = ActiveCache(tmp_path / "shop")
    with pytest.raises(Unavailable, match=r"start the node .* or correct the path"):
        cache.snapshot()


def test_before_the_first_activation_the_error_says_so(directory: CacheDir, clock: Clock) -> None:
    first = add(directory, OLD)
    PointerFile(directory.pointer_path).write(pointer(None, first, HOUR_NS + 5))
    cache = ActiveCache(directory.path, machine_ns=clock)
    with pytest.raises(Unavailable, match="first activation is still to come"):
        cache.snapshot()
    clock.now_ns += 5
    with cache.snapshot() as snap:
        assert snap.version == first


def test_a_snapshot_gives_files_paths_and_names(directory: CacheDir) -> None:
    version = add(directory, NEW)
    PointerFile(directory.pointer_path).write(pointer(version))
    with ActiveCache(str(directory.path)).snapshot() as snap:
        assert snap.version == version
        assert {name: snap[name] for name in NEW} == NEW
        assert list(snap) == ["more", "prices.json", "img/logo.png"]
        assert snap.path("img/logo.png") == directory.version_path(version) / "img" / "logo.png"
        assert snap.path("img/logo.png").read_bytes() == b"new logo"
        assert snap.path() == directory.version_path(version)
        assert "more" in snap
        assert "less" not in snap
        assert "img" not in snap
        assert snap.get("more") == b"more"
        assert snap.get("less") is None
        assert snap.get("less", b"nothing") == b"nothing"
        with pytest.raises(KeyError, match="less"):
            snap["less"]
        with pytest.raises(KeyError):
            snap["img"]


def test_a_snapshot_is_over_with_its_block(directory: CacheDir) -> None:
    PointerFile(directory.pointer_path).write(pointer(add(directory, OLD)))
    with ActiveCache(directory.path).snapshot() as snap:
        assert snap["prices.json"] == b"old"
    for use in (lambda: snap["prices.json"], snap.path, lambda: "more" in snap, lambda: list(snap)):
        with pytest.raises(ValueError, match="block is over"):
            use()


@pytest.mark.parametrize(
    "name",
    [
        "../../secret",
        "/etc/passwd",
        "img/../prices.json",
        "./more",
        "img//logo.png",
        "",
        "more/",
        "a\0b",
        "\udfff\ud800",
    ],
)
def test_no_name_leads_out_of_the_version(directory: CacheDir, name: str) -> None:
    (directory.path / "secret").write_bytes(b"secret")
    PointerFile(directory.pointer_path).write(pointer(add(directory, NEW)))
    with ActiveCache(directory.path).snapshot() as snap:
        assert snap.get(name) is None
        assert name not in snap


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "img/../../x"])
def test_no_path_leads_out_of_the_version(directory: CacheDir, name: str) -> None:
    PointerFile(directory.pointer_path).write(pointer(add(directory, NEW)))
    with ActiveCache(directory.path).snapshot() as snap, pytest.raises(ValueError, match="relative path"):
        snap.path(name)


def test_links_are_followed_within_the_version_only(directory: CacheDir) -> None:
    (directory.path / "secret").write_bytes(b"secret")
    version = "a" * 40
    top = directory.staging_path(version)
    (top / "img" / "deep").mkdir(parents=True)
    (top / "page").write_bytes(b"page")
    links = {
        "img/to-page": "../page",
        "img/deep/to-link": "../to-page",
        "to-directory": "img/deep",
        "out": "../../secret",
        "far-out": "img/deep/../../../../secret",
        "absolute": str(directory.path / "secret"),
        "circle": "circle",
        "round": "img/../round-again",
        "round-again": "round",
        "dangling": "nothing",
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    os.mkfifo(top / "pipe")
    directory.adopt(version)
    PointerFile(directory.pointer_path).write(pointer(version))
    with ActiveCache(directory.path).snapshot() as snap:
        for name in ("page", "img/to-page", "img/deep/to-link", "to-directory/to-link"):
            assert snap[name] == b"page", name
        for name in ("out", "far-out", "absolute", "circle", "round", "dangling", "pipe", "page/below", "x" * 300):
            assert snap.get(name) is None, name
        assert list(snap) == ["page"]


def test_names_that_are_no_text_are_read_too(directory: CacheDir) -> None:
    name = os.fsdecode(b"caf\xe9\n.txt")
    PointerFile(directory.pointer_path).write(pointer(add(directory, {name: b"x"})))
    with ActiveCache(directory.path).snapshot() as snap:
        assert list(snap) == [name]
        assert snap[name] == b"x"


def test_claim_s1_04_readers_switch_at_the_activation_time_by_the_clock_alone(
    directory: CacheDir, clock: Clock
) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    directory.point_link(old)
    node = PointerFile(directory.pointer_path)
    node.write(pointer(old, new, HOUR_NS + 1000))
    cache = ActiveCache(directory.path, machine_ns=clock)
    clock.now_ns = HOUR_NS + 999
    with cache.snapshot() as before:
        assert (before.version, before["prices.json"]) == (old, b"old")
        clock.now_ns += 1  # nothing else happens: no timer, no rename, no daemon
        with cache.snapshot() as after:
            assert (after.version, after["prices.json"]) == (new, b"new")
        assert before["img/logo.png"] == b"old logo", "a block keeps its version across the flip"
        assert before.path("prices.json").read_bytes() == b"old"
    node.write(pointer(new, cycle=2))
    with cache.snapshot() as later:
        assert later.version == new


def test_an_activation_time_that_moves_is_followed(directory: CacheDir, clock: Clock) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    node = PointerFile(directory.pointer_path)
    cache = ActiveCache(directory.path, machine_ns=clock)
    for flips_at_ns, expected in ((HOUR_NS + 5, old), (HOUR_NS - 5, new)):
        node.write(pointer(old, new, flips_at_ns))
        with cache.snapshot() as snap:
            assert snap.version == expected


def test_a_flip_that_was_seen_is_not_taken_back_by_a_better_clock(directory: CacheDir, clock: Clock) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    node = PointerFile(directory.pointer_path)
    node.write(pointer(old, new, HOUR_NS))
    cache = ActiveCache(directory.path, machine_ns=clock)
    seen = []
    for flips_at_ns in (HOUR_NS, HOUR_NS + 700):
        node.write(pointer(old, new, flips_at_ns))
        with cache.snapshot() as snap:
            seen.append(snap.version)
    assert seen == [new, new]
    node.write(pointer(new, old, HOUR_NS, cycle=2))  # a later cycle that leads back is another matter
    with cache.snapshot() as snap:
        assert snap.version == old


def test_a_pointer_of_another_boot_is_not_believed(directory: CacheDir, clock: Clock) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    directory.point_link(old)
    node = PointerFile(directory.pointer_path)
    node.write(pointer(old, new, 5, boot=b"another boot ..."))
    cache = ActiveCache(directory.path, machine_ns=clock)
    with cache.snapshot() as snap:
        assert snap.version == old
    directory.point_link(new)
    with cache.snapshot() as snap:
        assert snap.version == new, "the link is followed at once"
    node.write(pointer(old, cycle=3))
    with cache.snapshot() as snap:
        assert snap.version == old, "and the pointer again as soon as the node has started"


def test_without_a_pointer_the_link_decides(directory: CacheDir) -> None:
    directory.point_link(add(directory, OLD))
    directory.pointer_path.write_bytes(b"")
    with ActiveCache(directory.path).snapshot() as snap:
        assert snap["prices.json"] == b"old"


def test_a_state_made_anew_is_noticed_within_a_second(directory: CacheDir, clock: Clock) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    PointerFile(directory.pointer_path).write(pointer(old))
    cache = ActiveCache(directory.path, machine_ns=clock)
    with cache.snapshot() as snap:
        assert snap.version == old
    directory.pointer_path.unlink()
    PointerFile(directory.pointer_path).write(pointer(new))
    clock.now_ns += 10**9
    with cache.snapshot() as snap:
        assert snap.version == new
    directory.pointer_path.unlink()
    clock.now_ns += 10**9
    with cache.snapshot() as snap:
        assert snap.version == new, "with nothing to go by, what is held goes on"


def test_a_version_that_is_not_there_is_an_error_and_then_not(directory: CacheDir) -> None:
    version = add(directory, OLD)
    directory.remove(version)
    PointerFile(directory.pointer_path).write(pointer(version))
    cache = ActiveCache(directory.path)
    with pytest.raises(Unavailable, match="start the node"):
        cache.snapshot()
    add(directory, OLD)
    with cache.snapshot() as snap:
        assert snap["prices.json"] == b"old"


def test_a_lease_lasts_while_the_version_is_current_or_in_use(directory: CacheDir, clock: Clock) -> None:
    old, new = add(directory, OLD), add(directory, NEW)
    node = PointerFile(directory.pointer_path)
    node.write(pointer(old))
    cache = ActiveCache(directory.path, machine_ns=clock)
    assert not directory.leased(old), "nobody has asked yet"
    with cache.snapshot():
        pass
    assert directory.leased(old), "current, so that the next block is quick"
    with cache.snapshot() as in_use:
        node.write(pointer(new, cycle=2))
        with cache.snapshot() as snap:
            assert snap.version == new
        assert not directory.remove(old)
        assert in_use["prices.json"] == b"old"
    assert not directory.leased(old)
    assert directory.remove(old)
    cache.close()
    assert not directory.leased(new)
    with cache.snapshot() as snap:
        assert snap.version == new
    del cache, snap
    gc.collect()
    assert not directory.leased(new)


def test_small_files_are_read_once_and_the_memory_for_them_is_bounded(directory: CacheDir) -> None:
    files = {f"file-{number}": bytes([number]) * 100 for number in range(20)} | {"large": b"x" * 126}
    version = add(directory, files)
    PointerFile(directory.pointer_path).write(pointer(version))
    cache = ActiveCache(directory.path, memo_bytes=1000)
    with cache.snapshot() as snap:
        assert snap["file-1"] is snap["file-1"]
        assert snap["large"] is not snap["large"], "large files would drive the small ones out"
        for name, content in files.items():
            assert snap[name] == content
            assert sum(map(len, snap._memo.values())) <= 1000
        assert len(snap._memo) == 10
    with cache.snapshot() as snap:
        assert len(snap._memo) == 10, "what was read is kept for the next block"


def test_the_working_directory_may_change(directory: CacheDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    PointerFile(directory.pointer_path).write(pointer(add(directory, OLD)))
    monkeypatch.chdir(tmp_path)
    cache = ActiveCache("shop")
    monkeypatch.chdir("/")
    with cache.snapshot() as snap:
        assert snap.path("prices.json").read_bytes() == b"old"


def test_claim_s1_04_threads_never_see_a_mixture_and_never_go_back(directory: CacheDir) -> None:
    """Threads read two files per block while versions come, flip by the clock, and go."""
    cache = ActiveCache(directory.path)
    node = PointerFile(directory.pointer_path)
    rounds = 40
    versions = [add(directory, {"one": b"%d" % number, "two": b"%d" % number}) for number in range(2)]
    node.write(pointer(versions[0], cycle=0))
    faults: list[object] = []
    over = threading.Event()

    def read() -> None:
        last = 0
        while not over.is_set():
            with cache.snapshot() as snap:
                one = int(snap["one"])
                two = int(snap.path("two").read_bytes())
            if one != two or one < last:
                faults.append((one, two, last))
            last = one

    def guarded() -> None:
        try:
            read()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, rounds):
            node.write(pointer(versions[number - 1], versions[number], cache._machine_ns() + 200_000, cycle=number - 1))
            following = dict.fromkeys(("one", "two"), b"%d" % (number + 1))
            versions.append(add(directory, following))
            node.write(pointer(versions[number], cycle=number))
            for old in versions[: number - 1]:
                directory.remove(old)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert faults == []
    cache.close()
    for version in versions:
        assert directory.remove(version), "no lease is left"
