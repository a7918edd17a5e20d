"""What a peer asks is answered in the order in which it asked, although some answers take longer."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from farmsyncd.core.cycle import Course
from farmsyncd.core.messages import Message
from farmsyncd.core.messages.content import GetChunks
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import Cancel
from farmsyncd.core.messages.schedule import Datasets, DatasetsAre, Schedule
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, plan_message
from farmsyncd.data.sessions.people import Person
from farmsyncd.data.sessions.turns import MOST_WAITING, Turns
from farmsyncd.edges.link import Link
from farmsyncd.errors import PeerError


class Paper:
    """A link that only writes down what is sent."""

    address = "here"

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sent.extend(messages)


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
        self.first: Deferred[None] = Deferred()
        self.done: list[Message] = []
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
