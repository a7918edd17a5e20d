"""What a peer asks is answered in the order in which it asked, although some answers take longer."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from farmsyncd.core.cycle import Course
from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.content import GetChunks
from farmsyncd.core.messages.greeting import Hello, No
from farmsyncd.core.messages.operating import Answer, Cancel
from farmsyncd.core.messages.schedule import Datasets, DatasetsAre, Schedule
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, plan_message
from farmsyncd.data.sessions.people import Person
from farmsyncd.data.sessions.turns import MOST_WAITING, Turns
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError
from tests.wire_pair import DATA


class Paper:
    """A link that only writes down what is sent."""

    address = "here"

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sent.extend(messages)

    def when_taken(self) -> Deferred[None] | None:
        return None


class Busy:
    """A keeper that is rolling over until the test says so."""

    courses: dict[str, Course] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.done: Deferred[Course] = Deferred()

    def current(self, _dataset: str, _by: str) -> Any:
        return self.done


def test_whoever_asks_for_several_things_is_answered_in_turn() -> None:
    link, keeper, shop = Paper(), Busy(), Course("shop", 1)
    person = Person(cast("Link", link), cast("Keeper", keeper), Followers(lambda: ["shop"]))
    for message in (Schedule("shop"), Datasets(), Cancel("shop")):
        person.received(message)
    assert link.sent == []
    keeper.done.callback(shop)
    plan, names, no = link.sent
    assert (plan, names) == (plan_message(shop), DatasetsAre(("shop",)))
    assert isinstance(no, No)
    assert (no.code, no.verb) == ("refused", "CANCEL")


class Held:
    """Turns of which the first waits until the test says so; ``done`` is what was done since."""

    def __init__(self) -> None:
        self.turns = Turns(cast("Link", Paper()))
        self.done: list[Message] = []
        self.hold()

    def hold(self) -> None:
        self.first: Deferred[None] = Deferred()
        self.turns.take(Datasets(), self._wait)

    async def _wait(self) -> None:
        await self.first

    def take(self, message: Message) -> None:
        async def work() -> None:
            self.done.append(message)

        self.turns.take(message, work)


def test_who_asks_on_and_on_without_waiting_is_sent_away() -> None:
    held = Held()
    for _ in range(MOST_WAITING):
        held.take(Datasets())
    with pytest.raises(PeerError, match="and 10000 of its requests wait"):
        held.take(Datasets())


def test_what_waits_to_be_answered_has_few_bytes_however_few_requests_it_is() -> None:
    held, request = Held(), GetChunks("a" * 40, b"0" * 8_000_000)
    for _ in range(8):
        held.take(request)
    with pytest.raises(PeerError, match="and 64000000 bytes of its requests wait"):
        held.take(request)
    held.take(Datasets())
    held.first.callback(None)
    assert len(held.done) == 9
    for _ in range(20):
        held.take(request)  # none of them waits
    assert len(held.done) == 29
    held.hold()
    for _ in range(8):
        held.take(request)


def test_who_asks_faster_than_it_takes_the_answers_is_answered_as_it_takes_them() -> None:
    asked: list[Message] = []

    class Eager:
        """Serves a link by answering at great length, in turn."""

        turns: Turns

        def greeted(self, link: Link, _hello: Hello) -> None:
            self.turns = Turns(link)

        def received(self, link: Link, message: Message) -> None:
            async def answer() -> None:
                asked.append(message)
                link.send(Answer.of("STATUS", b"x" * 100_000))

            self.turns.take(message, answer)

        def lost(self, _link: Link, _reason: str) -> None:
            self.turns.end()

    transport, clock = StringTransport(), Clock()
    link = Link(Eager(), DATA, Side.SERVER, clock)
    link.makeConnection(transport)
    link.dataReceived(b"HELLO 1 operator anna\n" + b"STATUS\n" * 200)
    heard, before = 0, 0
    while heard < 200:
        assert link.unsent < link.settings.unsent_reading + 200_000
        assert len(asked) > before or transport.producerState == "paused"
        before = len(asked)
        while link.unsent:
            transport.producer.resumeProducing()  # type: ignore[union-attr]
        heard += transport.value().count(b"ANSWER STATUS")
        transport.clear()
        clock.advance(0)
    assert len(asked) == 200
    assert transport.producerState == "producing"
    link.dataReceived(b"STATUS\n" * 200)
    link.connectionLost(Failure(ConnectionDone()))
    assert len(asked) < 250
    assert not clock.getDelayedCalls()
