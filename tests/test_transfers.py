from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from farmsyncd.data.content.transfers import Pace, Transfers
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
