"""The cache of sessions: bounded, least recently used out first, never older than it was, nothing that has ended."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.sessions.cache import OVERHEAD_BYTES, Copy, SessionCache


def copy(name: str, version: int = 1, state: bytes = b"", checked_s: float = 0.0) -> Copy:
    return Copy(hashlib.sha256(name.encode()).digest(), version, state, checked_s, None, 1e9, 1e9)


def kept(cache: SessionCache, *names: str) -> list[str]:
    return [name for name in names if cache.peek(copy(name).digest) is not None]


def put(cache: SessionCache, *copies: Copy) -> None:
    for one in copies:
        cache.put(one, cache.ticket())


def test_the_least_recently_used_copy_goes_first_when_there_are_too_many() -> None:
    cache = SessionCache(2, 10**6)
    put(cache, copy("a"), copy("b"))
    assert cache.get(copy("a").digest) is not None
    put(cache, copy("c"))
    assert kept(cache, "a", "b", "c") == ["a", "c"]


def test_the_least_recently_used_copies_go_when_they_take_too_many_bytes() -> None:
    cache = SessionCache(100, 3 * (1000 + OVERHEAD_BYTES))
    put(cache, *(copy(name, state=bytes(1000)) for name in "abc"))
    assert kept(cache, *"abc") == ["a", "b", "c"]
    put(cache, copy("d", state=bytes(1001)))
    assert kept(cache, *"abcd") == ["c", "d"]


def test_a_copy_larger_than_the_whole_cache_leaves_the_others() -> None:
    cache = SessionCache(100, 5000)
    put(cache, copy("a"), copy("large", state=bytes(5000)))
    assert kept(cache, "a", "large") == ["a"]
    put(cache, copy("a", version=2, state=bytes(5000)))
    assert kept(cache, "a") == []  # and none of an older version stays
    assert (cache.entries, cache.bytes) == (0, 0)


@pytest.mark.parametrize(("entries", "size"), [(0, 10**6), (10, 0)])
def test_a_cache_of_no_size_keeps_nothing(entries: int, size: int) -> None:
    cache = SessionCache(entries, size)
    put(cache, copy("a"))
    assert (cache.entries, cache.bytes, cache.get(copy("a").digest)) == (0, 0, None)


def test_an_older_version_never_takes_the_place_of_a_newer_one() -> None:
    cache = SessionCache(10, 10**6)
    put(cache, copy("a", version=3), copy("a", version=2, checked_s=9.0))
    assert cache.get(copy("a").digest) == copy("a", version=3)


def test_of_one_version_the_copy_that_was_checked_later_stays() -> None:
    cache = SessionCache(10, 10**6)
    put(cache, copy("a", checked_s=5.0), copy("a", checked_s=4.0))
    assert cache.get(copy("a").digest) == copy("a", checked_s=5.0)
    put(cache, copy("a", checked_s=6.0))
    assert cache.get(copy("a").digest) == copy("a", checked_s=6.0)


def test_a_lower_version_takes_the_place_of_the_copy_that_was_seen_before_the_database_said_so() -> None:
    cache = SessionCache(10, 10**6)
    put(cache, copy("a", version=9))
    seen = cache.peek(copy("a").digest)
    cache.put(copy("a", version=4), cache.ticket(), seen)
    assert cache.get(copy("a").digest) == copy("a", version=4)


def test_an_answer_from_before_the_end_of_a_session_is_not_kept() -> None:
    cache = SessionCache(10, 10**6)
    ticket = cache.ticket()
    cache.forget(copy("a").digest)
    cache.put(copy("a"), ticket)
    cache.put(copy("b"), ticket)
    assert kept(cache, "a", "b") == ["b"]
    put(cache, copy("a"))  # asked for after that end
    assert kept(cache, "a") == ["a"]


def test_no_answer_from_before_is_kept_once_news_may_have_been_missed() -> None:
    cache = SessionCache(10, 10**6)
    put(cache, copy("a"))
    ticket = cache.ticket()
    cache.forget(None)
    cache.put(copy("b"), ticket)
    assert (kept(cache, "a", "b"), cache.bytes) == ([], 0)
    put(cache, copy("a"))
    assert kept(cache, "a") == ["a"]


def test_an_answer_that_is_older_than_all_remembered_ends_is_not_kept() -> None:
    cache = SessionCache(10, 10**6)
    ticket = cache.ticket()
    cache.forget(copy("a").digest)
    for number in range(5000):
        cache.forget(copy(f"other {number}").digest)
    cache.put(copy("a"), ticket)
    assert cache.entries == 0
    put(cache, copy("a"))
    assert cache.entries == 1


Steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "forget"]), st.sampled_from("abcd"), st.integers(1, 5), st.integers(0, 900)
    ),
    max_size=40,
)


@given(Steps)
def test_its_bounds_hold_and_its_bytes_are_those_of_its_copies(steps: list[tuple[str, str, int, int]]) -> None:
    cache = SessionCache(3, 2 * (500 + OVERHEAD_BYTES))
    for what, name, version, size in steps:
        if what == "put":
            put(cache, copy(name, version, bytes(size)))
        elif what == "get":
            cache.get(copy(name).digest)
        else:
            cache.forget(copy(name).digest)
        there = [one for name in "abcd" if (one := cache.peek(copy(name).digest)) is not None]
        assert cache.entries == len(there) <= 3
        assert cache.bytes == sum(len(one.state) + OVERHEAD_BYTES for one in there) <= 2 * (500 + OVERHEAD_BYTES)


def test_threads_that_fill_and_empty_it_at_once_leave_its_accounts_right() -> None:
    cache = SessionCache(8, 10**6)

    def work(seed: int) -> None:
        for number in range(2000):
            one = copy(str((number * seed) % 13), version=number % 7 + 1, state=bytes(number % 50))
            if number % 5 == 0:
                cache.forget(one.digest)
            elif number % 3 == 0:
                cache.get(one.digest)
            else:
                cache.put(one, cache.ticket())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = [one for number in range(13) if (one := cache.peek(copy(str(number)).digest)) is not None]
    assert cache.entries == len(there) <= 8
    assert cache.bytes == sum(len(one.state) + OVERHEAD_BYTES for one in there)


def test_a_copy_of_1_kib_takes_less_than_3_kib_of_memory_and_about_what_is_accounted() -> None:
    cache = SessionCache(10**6, 10**9)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            state = number.to_bytes(4, "big") * 256
            digest = hashlib.sha256(state).digest()
            now_s = 1000.5 + number
            cache.put(Copy(digest, 1000 + number, state, now_s, None, now_s + 7.5, now_s + 3.5), cache.ticket())
        each = (tracemalloc.get_traced_memory()[0] - before) / cache.entries
    finally:
        tracemalloc.stop()
    assert each < 3 * 1024
    assert cache.bytes / cache.entries == pytest.approx(each, rel=0.15)
