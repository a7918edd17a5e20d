"""What every store of sessions promises: in memory (which other tests rely on), in SQLite and in PostgreSQL alike."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from farmsyncd.core.session.faults import SessionError
from farmsyncd.sessions.stores.base import CENTURY_US, Lifetime, Row, Same, Store, Written
from tests.session_scenes import KINDS, Scene, scene_of

HOUR = 3600.0
LIFE = Lifetime(round(HOUR * 1e6), round(10 * HOUR * 1e6))
SLACK_US = 600_000_000  # a test that takes longer than ten minutes has other troubles


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


A, B, C = digest("a"), digest("b"), digest("c")


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with scene_of(request.param, tmp_path, request) as one:
        yield one


@pytest.fixture
def store(scene: Scene) -> Store:
    one = scene.store()
    one.prepare()
    return one


def near(left_us: int, expected_s: float) -> bool:
    return round(expected_s * 1e6) - SLACK_US <= left_us <= round(expected_s * 1e6)


def row(store: Store, name: bytes) -> Row:
    found = store.read(name)
    assert found is not None
    return found


def test_a_new_session_has_version_one_and_its_whole_life_before_it(store: Store) -> None:
    written = store.create(A, b"state", LIFE)
    assert written.version == 1
    found = row(store, A)
    assert (found.version, found.state) == (1, b"state")
    assert near(written.idle_left_us, HOUR)
    assert near(written.absolute_left_us, 10 * HOUR)
    assert near(found.idle_left_us, HOUR)
    assert near(found.absolute_left_us, 10 * HOUR)


def test_an_unknown_session_is_none_and_is_not_made_by_any_write(store: Store) -> None:
    assert store.read(A) is None
    assert store.revalidate(A, 1) is None
    assert store.write(A, 1, b"x", LIFE) is None
    assert store.rotate(A, 1, B, b"x", LIFE) is None
    assert store.delete(A) is False
    assert (store.read(A), store.read(B)) == (None, None)
    assert store.stats().live == 0


@pytest.mark.parametrize(
    "state", [b"", b"\0", b"\0\0a\0", bytes(range(256)), os.urandom(65536), b"\\x41", "ü\n'\"%s$1".encode()]
)
def test_a_state_comes_back_byte_for_byte(store: Store, state: bytes) -> None:
    store.create(A, state, LIFE)
    assert row(store, A).state == state
    assert isinstance(store.write(A, 1, state[::-1], LIFE), Written)
    assert row(store, A).state == state[::-1]
    assert isinstance(store.rotate(A, 2, B, state, LIFE), Written)
    assert row(store, B).state == state
    assert store.find(B, 10)[0].size == len(state)


def test_revalidation_sends_the_state_only_when_it_has_changed(store: Store) -> None:
    store.create(A, b"one", LIFE)
    same = store.revalidate(A, 1)
    assert isinstance(same, Same)
    assert near(same.idle_left_us, HOUR)
    assert near(same.absolute_left_us, 10 * HOUR)
    store.write(A, 1, b"two", LIFE)
    changed = store.revalidate(A, 1)
    assert isinstance(changed, Row)
    assert (changed.version, changed.state) == (2, b"two")
    assert isinstance(store.revalidate(A, 2), Same)
    higher = store.revalidate(A, 2**53)
    assert isinstance(higher, Row)
    assert higher.version == 2
    store.delete(A)
    assert store.revalidate(A, 2) is None


def test_an_empty_state_is_told_from_an_unchanged_one(store: Store) -> None:
    store.create(A, b"one", LIFE)
    store.write(A, 1, b"", LIFE)
    found = store.revalidate(A, 1)
    assert isinstance(found, Row)
    assert found.state == b""


def test_a_write_counts_a_version_and_renews_the_idle_time_alone(scene: Scene, store: Store) -> None:
    store.create(A, b"one", LIFE)
    scene.pass_s(0.9 * HOUR)
    assert near(row(store, A).idle_left_us, 0.1 * HOUR)
    written = store.write(A, 1, b"one", LIFE)
    assert isinstance(written, Written)
    assert written.version == 2
    assert near(written.idle_left_us, HOUR)
    assert near(written.absolute_left_us, 9.1 * HOUR)
    found = row(store, A)
    assert (found.version, found.state) == (2, b"one")
    assert near(found.idle_left_us, HOUR)
    assert near(found.absolute_left_us, 9.1 * HOUR)


def test_a_write_that_comes_late_changes_nothing_and_is_shown_who_was_first(store: Store) -> None:
    store.create(A, b"one", LIFE)
    store.write(A, 1, b"two", LIFE)
    late = store.write(A, 1, b"late", LIFE)
    assert isinstance(late, Row)
    assert (late.version, late.state) == (2, b"two")
    ahead = store.write(A, 3, b"ahead", LIFE)
    assert isinstance(ahead, Row)
    assert ahead.version == 2
    found = row(store, A)
    assert (found.version, found.state) == (2, b"two")


def test_what_was_deleted_is_not_written_again(store: Store) -> None:
    store.create(A, b"one", LIFE)
    assert store.delete(A) is True
    assert store.delete(A) is False
    assert store.read(A) is None
    assert store.write(A, 1, b"two", LIFE) is None
    assert store.rotate(A, 1, B, b"two", LIFE) is None
    assert (store.read(A), store.read(B)) == (None, None)


def test_rotation_moves_the_session_to_its_new_id_and_keeps_its_age(scene: Scene, store: Store) -> None:
    store.create(A, b"one", LIFE)
    store.create(C, b"other", LIFE)
    scene.pass_s(0.5 * HOUR)
    born = store.find(A, 1)[0].created_us
    written = store.rotate(A, 1, B, b"two", LIFE)
    assert isinstance(written, Written)
    assert written.version == 2
    assert near(written.idle_left_us, HOUR)
    assert near(written.absolute_left_us, 9.5 * HOUR)
    assert store.read(A) is None
    assert store.write(A, 1, b"x", LIFE) is None
    found = row(store, B)
    assert (found.version, found.state) == (2, b"two")
    assert near(found.absolute_left_us, 9.5 * HOUR)
    assert store.find(B, 1)[0].created_us == born
    assert row(store, C).state == b"other"


def test_a_rotation_that_comes_late_changes_nothing(store: Store) -> None:
    store.create(A, b"one", LIFE)
    store.write(A, 1, b"two", LIFE)
    late = store.rotate(A, 1, B, b"late", LIFE)
    assert isinstance(late, Row)
    assert (late.version, late.state) == (2, b"two")
    assert store.read(B) is None
    assert row(store, A).state == b"two"


def test_an_id_that_is_in_use_is_refused(store: Store) -> None:
    store.create(A, b"one", LIFE)
    store.create(B, b"other", LIFE)
    with pytest.raises(SessionError, match="used before"):
        store.create(A, b"two", LIFE)
    with pytest.raises(SessionError, match="used before"):
        store.rotate(A, 1, B, b"two", LIFE)
    assert (row(store, A).state, row(store, B).state) == (b"one", b"other")


@pytest.mark.parametrize(
    ("life", "passes_s"),
    [
        (LIFE, HOUR + 1),
        (Lifetime(round(HOUR * 1e6), round(HOUR * 5e5)), HOUR / 2 + 1),
    ],
    ids=["idle", "absolute"],
)
def test_what_has_expired_is_as_if_it_were_not_there(
    scene: Scene, store: Store, life: Lifetime, passes_s: float
) -> None:
    store.create(A, b"one", life)
    scene.pass_s(passes_s)
    assert store.read(A) is None
    assert store.revalidate(A, 1) is None
    assert store.write(A, 1, b"two", life) is None
    assert store.rotate(A, 1, B, b"two", life) is None
    assert store.find(b"", 10) == []
    assert (store.stats().live, store.stats().expired) == (0, 1)
    assert store.delete(A) is False
    assert (store.read(A), store.read(B)) == (None, None)


def test_a_touch_keeps_a_session_alive_until_its_absolute_end(scene: Scene, store: Store) -> None:
    store.create(A, b"one", Lifetime(round(HOUR * 1e6), round(2.5 * HOUR * 1e6)))
    version = 1
    for _ in range(3):
        scene.pass_s(0.8 * HOUR)
        written = store.write(A, version, b"one", LIFE)
        assert isinstance(written, Written)
        version = written.version
    assert version == 4
    found = row(store, A)
    assert near(found.absolute_left_us, 0.1 * HOUR) or found.absolute_left_us < 0.1 * HOUR * 1e6
    scene.pass_s(0.2 * HOUR)
    assert store.read(A) is None


def test_an_endless_life_is_a_century(store: Store) -> None:
    endless = Lifetime(10**30, 10**40)
    written = store.create(A, b"one", endless)
    assert written.absolute_left_us == CENTURY_US
    assert isinstance(store.write(A, 1, b"two", endless), Written)
    assert isinstance(store.rotate(A, 2, B, b"two", endless), Written)
    assert row(store, B).idle_left_us > CENTURY_US - SLACK_US


def test_sweeping_removes_what_has_expired_in_small_steps_and_nothing_else(scene: Scene, store: Store) -> None:
    short = Lifetime(1_000_000, 10_000_000)
    for number in range(7):
        store.create(digest(f"short {number}"), b"x", short)
    store.create(A, b"long", LIFE)
    assert store.sweep(100) == 0
    scene.pass_s(60)
    assert store.stats().expired == 7
    assert [store.sweep(3) for _ in range(4)] == [3, 3, 1, 0]
    assert (store.stats().live, store.stats().expired) == (1, 0)
    assert row(store, A).state == b"long"


def test_what_is_touched_is_not_swept(scene: Scene, store: Store) -> None:
    store.create(A, b"one", LIFE)
    scene.pass_s(0.9 * HOUR)
    store.write(A, 1, b"one", LIFE)
    scene.pass_s(0.9 * HOUR)
    assert store.sweep(100) == 0
    assert row(store, A).version == 2


def test_sessions_are_found_by_the_beginning_of_their_digest_the_latest_changed_first(
    scene: Scene, store: Store
) -> None:
    names = [bytes([first]) + os.urandom(31) for first in (0x00, 0x10, 0x10, 0xFF)]
    names.append(b"\xff" * 32)
    for name in names:
        store.create(name, b"four", LIFE)
        scene.pass_s(1)
    store.write(names[1], 1, b"sixsix", LIFE)
    found = store.find(b"", 10)
    assert [one.digest for one in found] == [names[1], names[4], names[3], names[2], names[0]]
    assert (found[0].version, found[0].size, found[1].version, found[1].size) == (2, 6, 1, 4)
    assert all(one.created_us <= one.changed_us < one.idle_expires_us < one.absolute_expires_us for one in found)
    assert [one.digest for one in store.find(b"", 2)] == [names[1], names[4]]
    assert [one.digest for one in store.find(b"\x10", 10)] == [names[1], names[2]]
    assert [one.digest for one in store.find(b"\xff", 10)] == [names[4], names[3]]
    assert [one.digest for one in store.find(names[0], 10)] == [names[0]]
    assert store.find(b"\x11", 10) == []


def test_statistics_count_what_lives_and_what_waits_to_be_swept(scene: Scene, store: Store) -> None:
    empty = store.stats()
    assert (empty.live, empty.expired, empty.state_bytes, empty.largest_bytes) == (0, 0, 0, 0)
    assert empty.oldest_created_us is None
    store.create(A, b"x" * 100, Lifetime(1_000_000, 1_000_000))
    store.create(B, b"x" * 10, LIFE)
    store.create(C, b"x" * 30, LIFE)
    scene.pass_s(5)
    found = store.stats()
    assert (found.live, found.expired, found.state_bytes, found.largest_bytes) == (2, 1, 40, 30)
    assert found.oldest_created_us == min(one.created_us for one in store.find(b"", 10))


def test_two_stores_see_each_others_sessions_and_prepare_as_often_as_they_like(scene: Scene, store: Store) -> None:
    other = scene.store()
    other.prepare()
    store.create(A, b"one", LIFE)
    before = other.generation()
    assert isinstance(other.write(A, 1, b"two", LIFE), Written)
    other.prepare()
    assert row(store, A).state == b"two"
    late = store.write(A, 1, b"late", LIFE)
    assert isinstance(late, Row)
    assert late.state == b"two"
    assert other.generation() is None or other.generation() != before


def in_parallel(jobs: list[Callable[[], object]]) -> list[object]:
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> object:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [one.result() for one in [pool.submit(run, job) for job in jobs]]


def test_many_threads_that_write_one_session_lose_nothing(scene: Scene, store: Store) -> None:
    stores = [store, scene.store()]
    store.create(A, b"", LIFE)

    def add(letter: bytes, mine: Store) -> int:
        written = 0
        base = row(mine, A)
        while written < 20:
            answer = mine.write(A, base.version, base.state + letter, LIFE)
            if isinstance(answer, Written):
                assert answer.version == base.version + 1
                written += 1
                base = Row(answer.version, base.state + letter, 1, 1)
            else:
                assert answer is not None
                assert answer.version > base.version
                base = answer
        return written

    letters = [bytes([letter]) for letter in b"abcdefgh"]
    assert in_parallel([partial(add, letter, stores[n % 2]) for n, letter in enumerate(letters)]) == [20] * 8
    final = row(store, A)
    assert final.version == 161
    assert {letter: final.state.count(letter) for letter in letters} == dict.fromkeys(letters, 20)


def test_of_many_that_rotate_write_and_delete_at_once_one_is_first(scene: Scene, store: Store) -> None:
    stores = [store, scene.store()]
    for number in range(5):
        old = digest(f"old {number}")
        news = [digest(f"new {number} {one}") for one in range(4)]
        store.create(old, b"one", LIFE)
        jobs: list[Callable[[], object]] = [
            partial(stores[n % 2].rotate, old, 1, new, b"rotated", LIFE) for n, new in enumerate(news)
        ]
        jobs.append(partial(store.delete, old))
        answers = in_parallel(jobs)
        winners = [new for new, answer in zip(news, answers, strict=False) if isinstance(answer, Written)]
        assert len(winners) + (answers[-1] is True) == 1
        assert [new for new in news if store.read(new) is not None] == winners
        assert store.read(old) is None


def test_first_use_by_many_threads_at_once(scene: Scene) -> None:
    stores = [scene.store() for _ in range(4)]
    in_parallel([one.prepare for one in stores])
    names = [digest(f"n{number}") for number in range(8)]
    in_parallel([partial(stores[n % 4].create, name, b"x", LIFE) for n, name in enumerate(names)])
    assert stores[0].stats().live == 8
