from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmsyncd.core.chunkframes import frame_head
from farmsyncd.core.messages.content import Delta
from farmsyncd.core.wire import encode
from farmsyncd.data.content.framefile import FrameFile, open_frames
from farmsyncd.data.content.transfers import Pace, Transfers, portions
from farmsyncd.edges.link import Link
from farmsyncd.edges.link.outbox import PourEnded


class Piece:
    """Some bytes of no file at all."""

    fd = -1
    offset = 0

    def __init__(self, length: int) -> None:
        self.length = length


class Taking:
    """A link that takes what is poured when the test says so."""

    def __init__(self) -> None:
        self.poured: list[int] = []
        self.pouring: Deferred[None] | None = None

    def pour(self, source: Iterator[Any]) -> Deferred[None]:
        self.poured += [piece.length for piece in source]
        self.pouring = Deferred()
        return self.pouring

    def take(self) -> None:
        pouring, self.pouring = self.pouring, None
        assert pouring is not None
        pouring.callback(None)


def begin(transfers: Transfers, link: Taking, *lengths: int) -> Deferred[None]:
    sending = Deferred.fromCoroutine(transfers.send(cast("Link", link), lambda: [Piece(one) for one in lengths]))
    return sending.addErrback(lambda failure: failure.trap(PourEnded) and None)


def test_no_more_than_so_many_are_served_at_once_and_the_rest_in_the_order_of_asking() -> None:
    transfers = Transfers(2, Pace(None, Clock()))
    links = [Taking() for _ in range(4)]
    for link in links:
        begin(transfers, link, 5, 7)
    assert [link.poured for link in links] == [[5, 7], [5, 7], [], []]
    assert (transfers.running, transfers.waiting) == (2, 2)
    links[1].take()
    assert [bool(link.poured) for link in links] == [True, True, True, False]
    assert links[0].pouring is not None
    links[0].pouring.errback(PourEnded("the node has gone"))
    assert links[3].poured == [5, 7]
    links[2].take()
    links[3].take()
    assert (transfers.running, transfers.waiting, transfers.sent_bytes) == (0, 0, 48)


def test_whoever_goes_while_waiting_makes_room() -> None:
    transfers = Transfers(1, Pace(None, Clock()))
    first, second, third = Taking(), Taking(), Taking()
    begin(transfers, first, 1)
    given_up = begin(transfers, second, 1)
    begin(transfers, third, 1)
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    first.take()
    assert (second.poured, third.poured) == ([], [1])
    third.take()


def test_a_rate_is_shared_by_all_and_never_exceeded() -> None:
    clock = Clock()
    transfers = Transfers(9, Pace(100, clock))
    links = [Taking(), Taking()]
    for link in links:
        begin(transfers, link, 50, 50)
    sent = []
    for _ in range(30):
        for link in links:
            if link.pouring is not None:
                link.take()
        sent.append(transfers.sent_bytes)
        clock.advance(0.1)
    assert all(count <= 50 + 100 * 0.1 * (turn + 1) for turn, count in enumerate(sent))
    assert [link.poured for link in links] == [[50, 50], [50, 50]]


def chunk_frame(size: int) -> bytes:
    return frame_head(os.urandom(32), "raw", size, size) + bytes(size) + b","


def delta_frame(size: int) -> bytes:
    return encode(Delta("5" * 40, 0, 1, bytes(size)).frame())


@pytest.mark.parametrize("frame", [chunk_frame, delta_frame])
def test_what_lies_together_is_sent_in_portions_of_whole_frames(tmp_path: Path, frame: Any) -> None:
    frames = [frame(size) for size in (300, 300, 2000, 10, 10, 10, 400)]
    path = tmp_path / "frames"
    path.write_bytes(b"before" + b"".join(frames) + b"after")
    opened = open_frames(path)
    found = list(portions(FrameFile(os.dup(opened.fd), sum(map(len, frames)), 6), 1000))
    ends = [6, *itertools.accumulate(map(len, frames), initial=6)]
    assert {one.offset for one in found} <= set(ends)
    assert [one.offset for one in found[1:]] == [one.offset + one.length for one in found[:-1]]
    assert sum(one.length for one in found) == sum(map(len, frames))
    assert [one.length <= 1000 for one in found] == [True, False, True]
    assert all(one.fd == found[0].fd for one in found)


def test_what_is_no_frame_is_one_portion(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(chunk_frame(100) + b"?" * 5000)
    found = list(portions(open_frames(path), 1000))
    assert sum(one.length for one in found) == path.stat().st_size
    assert len(found) == 2


def test_a_rate_holds_within_what_lies_together(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "pack"
    path.write_bytes(b"".join(chunk_frame(9_000) for _ in range(100)))
    transfers, link = Transfers(9, Pace(200_000, clock)), Taking()
    sending = Deferred.fromCoroutine(transfers.send(cast("Link", link), lambda: [open_frames(path)]))
    for turn in range(60):
        assert transfers.sent_bytes <= 200_000 * turn / 10 + 20_000
        if link.pouring is not None:
            link.take()
        clock.advance(0.1)
    assert sending.called
    assert sum(link.poured) == transfers.sent_bytes == path.stat().st_size
