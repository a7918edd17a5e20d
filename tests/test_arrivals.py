"""An upload's chunks on their way into the store: no more wait than should, and who stops reading goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.messages.content import Chunk
from farmsyncd.data.content import arrivals
from farmsyncd.data.content.arrivals import Arrivals
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.errors import PeerError


class Busy:
    """A thread that does its work when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def run(self, work: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: execute(work, *arguments).addBoth(done.callback))
        return done

    def catch_up(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


def chunk(number: int) -> Chunk:
    data = b"%03d" % number * 100
    return Chunk(digest_of(data), "raw", len(data), data)


def upload(path: Path, thread: Busy) -> tuple[Arrivals, ChunkStore, list[bool]]:
    store, crowded = ChunkStore(path), list[bool]()
    return Arrivals(store, thread, crowded.append), store, crowded  # type: ignore[arg-type]


def test_who_uploads_faster_than_the_disk_stores_is_held_up_and_goes_on_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_HIGH", 1000)
    monkeypatch.setattr(arrivals, "_LOW", 400)
    thread = Busy()
    coming, store, crowded = upload(tmp_path, thread)
    for first in (0, 10, 20):
        for number in range(first, first + 10):
            coming.add(chunk(number))
            assert crowded[-1:] == [True] or number < first + 4
        thread.catch_up()
        assert crowded[-1] is False
    assert crowded == [True, False] * 3
    finished = coming.finish()
    thread.catch_up()
    assert finished.called
    assert all(store.has(chunk(number).digest) for number in range(30))


def test_a_chunk_that_lies_ends_the_upload_and_what_came_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_HIGH", 100)
    thread = Busy()
    coming, store, crowded = upload(tmp_path, thread)
    coming.add(chunk(1))
    thread.catch_up()
    coming.add(Chunk(chunk(2).digest, "raw", 300, chunk(3).data))
    coming.add(chunk(4))
    thread.catch_up()
    coming.add(chunk(5))
    failed = coming.finish()
    thread.catch_up()
    found: list[Any] = []
    failed.addErrback(found.append)
    assert found[0].check(PeerError)
    assert crowded[-1] is False
    assert [store.has(chunk(number).digest) for number in (1, 4, 5)] == [True, False, False]
