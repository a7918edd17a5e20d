from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.cycle import Course, Cycle
from farmsyncd.core.messages.content import Chunk, Lack, Offer
from farmsyncd.core.messages.operating import Accepted, Cancel, Done, Pin, Publish, Unpin
from farmsyncd.core.messages.schedule import Schedule, Standing
from farmsyncd.core.snapshot import Manifest, encode_pieces
from farmsyncd.data.content import housekeeping
from farmsyncd.data.content.retained import droppable
from farmsyncd.edges.content.tree import scan
from tests.dataserver import SECOND, Room, tree

DATASETS = st.sampled_from(["shop", "docs"])
VERSIONS = st.sampled_from([str(digit) * 40 for digit in range(8)])
HELD = st.tuples(DATASETS, VERSIONS)


def cycles(version: str | None) -> Cycle | None:
    return None if version is None else Cycle(1, version, 10, 5)


COURSES = st.builds(
    lambda dataset, active, pending: Course(dataset, 1, 1, cycles(active), cycles(pending)),
    DATASETS,
    st.none() | VERSIONS,
    st.none() | VERSIONS,
)


@given(
    held=st.lists(HELD, unique=True),
    courses=st.lists(COURSES, unique_by=lambda one: one.dataset),
    activations=st.dictionaries(DATASETS, st.lists(VERSIONS)),
    others=st.sets(HELD),
    keep=st.integers(1, 4),
)
def test_what_is_promised_to_stay_never_goes_and_everything_else_does(
    held: list[tuple[str, str]],
    courses: list[Course],
    activations: dict[str, list[str]],
    others: set[tuple[str, str]],
    keep: int,
) -> None:
    gone = droppable(held, courses, activations, others, keep)
    assert set(gone) <= set(held)
    assert not set(gone) & others
    for course in courses:
        kept = {cycle.version for cycle in (course.active, course.pending) if cycle}
        lately = list(dict.fromkeys(reversed(activations.get(course.dataset, []))))[:keep]
        for version in kept | set(lately):
            assert (course.dataset, version) not in gone
        for dataset, version in set(held) - set(gone) - others:
            if dataset == course.dataset:
                assert version in kept | set(lately)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "state")
    yield room
    room.close()


def activated(room: Room, path: Path, dataset: str = "shop", **files: str) -> str:
    accepted = room.operator().publish(dataset, tree(path, **files))
    room.pass_(10)
    room.peer("node", "roller").say(Schedule(dataset))
    return accepted.version


def content(number: int) -> str:
    return f"version {number} " * 50


def test_the_last_three_stay_with_their_chunks_and_the_rest_goes_from_the_disk(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    versions = [activated(room, site, a=content(number), same="same") for number in range(6)]
    assert room.parts.library.versions == set(versions[3:])
    assert {path.name for path in (room.config.state / "manifests").iterdir()} == set(versions[3:])
    assert {path.name for path in (room.config.state / "deltas").iterdir()} == {
        f"{versions[3]}-{versions[4]}", f"{versions[4]}-{versions[5]}",
    }  # fmt: skip
    store = room.parts.library.store
    assert len(store) == 4
    for version in versions[3:]:
        for digest, length in room.parts.library.read(version).distinct_chunks():
            assert len(store.read(digest)) == length
    room.restart()
    room.parts.housekeeping.soon()
    assert room.parts.library.versions == set(versions[3:])
    assert len(room.parts.library.store) == 4


def test_what_nodes_still_have_stays_until_they_say_otherwise(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = activated(room, site, a=content(0))
    web = room.peer("node", "web-1")
    web.say(Standing("shop", "late", 1, first, None, None, None, None, b""))
    later = [activated(room, site, a=content(number)) for number in range(1, 5)]
    assert first in room.parts.library
    web.say(Standing("shop", "ready", 5, later[-1], None, None, None, None, b""))
    newest = activated(room, site, a=content(9))
    assert room.parts.library.versions == {*later[-2:], newest}


def test_a_version_of_two_datasets_goes_when_the_last_lets_go(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shared = activated(room, site, "docs", a=content(0))
    activated(room, site, "shop", a=content(0))
    for number in range(1, 4):
        activated(room, site, "shop", a=content(number))
    assert shared in room.parts.library
    for number in range(1, 4):
        activated(room, site, "docs", a=content(number))
    assert shared not in room.parts.library


def test_a_version_that_was_cancelled_or_replaced_goes_at_once(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    operator = room.operator()
    replaced = operator.publish("shop", tree(site, a=content(1))).version
    cancelled = operator.publish("shop", tree(site, a=content(2))).version
    assert room.parts.library.versions == {cancelled}
    assert replaced not in room.parts.library
    operator.ask(Cancel("shop"))
    assert room.parts.library.versions == frozenset()
    assert len(room.parts.library.store) == 0


def test_an_unpinned_version_goes(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = activated(room, site, a=content(0))
    room.peer("node", "web-1").say(Standing("shop", "ready", 1, None, None, None, None, None, b""))
    operator = room.operator()
    assert operator.ask(Pin("web-1", "shop", first)) == Done("PIN")
    for number in range(1, 5):
        activated(room, site, a=content(number))
    assert first in room.parts.library
    operator.ask(Unpin("web-1", "shop"))
    assert first not in room.parts.library


def test_an_upload_in_progress_and_one_that_broke_off_keep_their_chunks_for_a_while(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    manifest = scan(tree(tmp_path / "new", a=content(50), b=content(51))).manifest
    offer = Offer(manifest.version, tuple(encode_pieces(manifest)))
    uploading = room.operator()
    uploading.ask(offer)
    digest, length = manifest.distinct_chunks()[0]
    uploading.say(Chunk(digest, "raw", length, content(50).encode()))
    uploading.leave()
    for number in range(5):
        activated(room, site, a=content(number))
    again = room.operator().ask(offer)
    assert again == Lack(manifest.version, b"1")
    room.pass_(3601)
    room.peers[-1].leave()
    room.pass_(3601)
    activated(room, site, a=content(6))
    assert not room.parts.library.store.has(digest)


def test_what_a_crash_left_between_manifest_and_catalog_goes_at_the_next_start(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    kept = activated(room, site, a=content(0))
    orphan = scan(tree(site, a=content(1))).manifest
    written = Deferred.fromCoroutine(room.parts.library.keep(orphan))
    assert written.called
    (room.config.state / "manifests" / "half.new").write_bytes(b"half a manif")
    (room.config.state / "deltas" / "half.new").write_bytes(b"half a del")
    room.restart()
    assert orphan.version in room.parts.library
    room.parts.housekeeping.soon()
    assert room.parts.library.versions == {kept}
    assert not list((room.config.state / "manifests").glob("*.new"))
    assert not list((room.config.state / "deltas").glob("*.new"))


def test_chunks_that_a_crash_left_without_a_manifest_go_at_the_next_start_if_no_upload_needs_them(
    room: Room, tmp_path: Path
) -> None:
    activated(room, tmp_path / "site", a=content(0))
    chunks = [b"of an upload long ago", b"of one that has just broken off"]
    for chunk in chunks:
        with room.parts.library.store.writer() as writer:
            writer.put(digest_of(chunk), "raw", len(chunk), chunk)
    old = sorted((room.config.state / "packs").glob("*.pack"))[-2]
    os.utime(old, (1, 1))
    room.restart()
    room.parts.housekeeping.soon()
    assert [room.parts.library.store.has(digest_of(chunk)) for chunk in chunks] == [False, True]


class Slow:
    """A catalog's thread that has done its work and has not said so yet."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.done: list[Callable[[], None]] = []

    def run(self, work: Callable[..., object], *arguments: object) -> Deferred[object]:
        answer: Deferred[object] = Deferred()
        found: list[object] = []
        self._real.run(work, *arguments).addCallback(found.append)
        self.done.append(lambda: answer.callback(found[0]))
        return answer


def test_what_comes_and_goes_while_the_catalog_is_looked_through_is_told_apart(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, keeping = room.operator(), room.parts.housekeeping
    activated(room, tmp_path / "site", a=content(0))
    site = tree(tmp_path / "new", a=content(1))
    assert Deferred.fromCoroutine(room.parts.library.keep(scan(site).manifest)).called
    with monkeypatch.context() as patch:
        slow = Slow(keeping._catalog_thread)
        patch.setattr(keeping, "_catalog_thread", slow)
        keeping.soon()
        version = operator.publish("shop", site).version
        slow.done.pop(0)()
    assert version in room.parts.library
    with monkeypatch.context() as patch:
        slow = Slow(room.parts.library._thread)
        patch.setattr(room.parts.library, "_thread", slow)
        keeping.soon()  # has looked, and drops nothing
        operator.ask(Cancel("shop"))
        patch.undo()
        slow.done.pop(0)()
    assert version not in room.parts.library


def test_a_version_that_is_being_used_is_not_dropped(room: Room, tmp_path: Path) -> None:
    site = tmp_path / "site"
    operator = room.operator()
    version = operator.publish("shop", tree(site, a=content(1))).version
    with room.parts.library.using(version), room.parts.library.using(version):
        operator.ask(Cancel("shop"))
        assert version in room.parts.library
        answer = operator.ask(Publish("shop", version, "in:10000000000"))
        assert isinstance(answer, Accepted)
        operator.ask(Cancel("shop"))
    room.parts.housekeeping.soon()
    assert version not in room.parts.library


def test_a_change_that_lets_nothing_go_reads_no_manifest(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    activated(room, site, a=content(0))
    reads: list[str] = []
    read = room.parts.library.read

    def counting(version: str) -> Manifest:
        reads.append(version)
        return read(version)

    monkeypatch.setattr(room.parts.library, "read", counting)
    room.operator().publish("shop", tree(site, b="x"))
    reads.clear()
    room.pass_(10)
    room.peer("node", "roller").say(Schedule("shop"))
    assert room.parts.keeper.courses["shop"].last_cycle == 2
    assert reads == []


def test_history_is_bounded(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "_HISTORY", 2)
    site = tmp_path / "site"
    for number in range(4):
        activated(room, site, a=content(number))
    done = Deferred.fromCoroutine(room.parts.housekeeping.forget_history())
    assert done.called
    assert [one.number for one in room.parts.catalog.history("shop", 9)] == [4, 3]


def test_nodes_not_seen_for_long_are_forgotten_but_not_those_that_are_here(room: Room) -> None:
    for name in ("web-1", "web-2"):
        room.peer("node", name).say(Standing("shop", "ready", 1, None, None, None, None, None, b""))
    room.peers[0].leave()
    room.pass_(room.config.forget_after_ns / SECOND + 1)
    gone: list[list[str]] = []
    Deferred.fromCoroutine(room.parts.roster.forget_strangers()).addCallback(gone.append)
    assert gone == [["web-1"]]
    assert [record.name for record, _connected in room.parts.roster.records()] == ["web-2"]


def test_what_a_node_that_is_here_follows_no_more_is_forgotten(room: Room) -> None:
    def stands(dataset: str) -> Standing:
        return Standing(dataset, "empty", None, None, None, None, None, None, b"")

    before = room.peer("node", "web-1", instance="before")
    before.say(stands("shpo"))
    before.say(stands("shop"))
    before.leave()
    room.peer("node", "web-1", instance="after").say(stands("shop"))
    forget = room.parts.roster.forget_strangers
    Deferred.fromCoroutine(forget())
    assert [record.dataset for record, _connected in room.parts.roster.records()] == ["shop", "shpo"]
    Deferred.fromCoroutine(room.parts.roster.write())
    room.pass_(room.config.expect_within_ns / SECOND + 1)
    Deferred.fromCoroutine(forget())
    assert [record.dataset for record, _connected in room.parts.roster.records()] == ["shop"]
    assert [record.dataset for record in room.parts.catalog.nodes()] == ["shop"]
