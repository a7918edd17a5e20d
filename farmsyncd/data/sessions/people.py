"""What needs no greeting: SCHEDULE and DATASETS (and TIME, at the gate). A person with netcat is served here."""

from __future__ import annotations

from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.schedule import Datasets, Schedule
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, plan_message, unknown_dataset
from farmsyncd.data.sessions.turns import Turns
from farmsyncd.edges.link import Link


class Person:
    """A peer that may ask what needs no greeting, and nothing else."""

    def __init__(self, link: Link, keeper: Keeper, followers: Followers) -> None:
        self.link = link
        self.turns = Turns(link)
        self._keeper = keeper
        self._followers = followers

    def received(self, message: Message) -> None:
        """Answer a message, or turn it down."""
        match message:
            case Datasets():
                self.turns.take(message, self._list)
            case Schedule():
                self.turns.take(message, lambda: self._schedule(message.dataset))
            case _:
                self.turns.refuse(message, "a peer in this role")

    def lost(self, _reason: str) -> None:
        """The link is gone."""
        self.turns.end()

    async def _list(self) -> None:
        self.link.send(self._followers.datasets())

    async def _schedule(self, dataset: str) -> None:
        course = await self._keeper.current(dataset, self.link.address)
        if course is None:
            raise unknown_dataset(dataset, self._keeper.courses)
        self.link.send(plan_message(course))
