"""What a peer asks is answered in the order in which it asked, although some answers take longer."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred

from farmsyncd.core.cycle import Course
from farmsyncd.core.messages import Message
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import Cancel
from farmsyncd.core.messages.schedule import Datasets, DatasetsAre, Schedule
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, plan_message
from farmsyncd.data.sessions.people import Person
from farmsyncd.edges.link import Link


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
