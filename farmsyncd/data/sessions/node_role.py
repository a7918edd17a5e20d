"""A node that follows schedules: it asks for plans and is pushed later ones, and says how it stands and flips."""

from __future__ import annotations

from functools import partial

from farmsyncd.core.cycle import Course
from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.schedule import Datasets, Flipped, Noted, Schedule, Standing
from farmsyncd.data.flips import FlipBook
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper
from farmsyncd.data.pins import PinBoard
from farmsyncd.data.roster import Roster
from farmsyncd.data.sessions.turns import Turns
from farmsyncd.edges.link import Link


class NodeRole:
    """One node's connection. Raises PeerError when another node of this name is here."""

    def __init__(
        self,
        link: Link,
        hello: Hello,
        keeper: Keeper,
        followers: Followers,
        roster: Roster,
        pins: PinBoard,
        flips: FlipBook,
    ) -> None:
        self._link = link
        self._keeper = keeper
        self._followers = followers
        self._roster = roster
        self._pins = pins
        self._flips = flips
        self._turns = Turns(link)
        self._told_pins: dict[str, tuple[str, ...]] = {}
        self._present = roster.admit(link, hello, self.tell_pins)

    @property
    def name(self) -> str:
        """The node's name."""
        return self._present.name

    def received(self, message: Message) -> None:
        """Answer what a node asks or says."""
        match message:
            case Datasets():
                self._followers.follow_list(self._link)
                self._turns.take(message, self._list)
            case Schedule():
                self._present.cares_for(message.dataset)
                self._followers.follow(self._link, message.dataset)
                self._turns.take(message, partial(self._schedule, message.dataset))
            case Standing():
                self._roster.stands(self._present, message)
                self._turns.take(message, partial(self._standing, message.dataset))
            case Flipped():
                self._turns.take(message, partial(self._flipped, message))
            case _:
                self._turns.refuse(message, "a node")

    def lost(self, reason: str) -> None:
        """The node has gone."""
        self._followers.drop(self._link)
        self._roster.leave(self._present, reason)
        self._turns.end()

    async def _come_back(self, dataset: str) -> Course:
        """Roll over if this node is the first to come back after an activation; the course then."""
        course = await self._keeper.current(dataset, self.name)
        return course if course is not None else Course(dataset)

    async def _standing(self, dataset: str) -> None:
        await self._come_back(dataset)

    async def _list(self) -> None:
        self._link.send(self._followers.datasets())

    async def _schedule(self, dataset: str) -> None:
        course = await self._come_back(dataset)
        self.tell_pins(dataset)
        self._link.send_bytes(self._followers.plan(course))

    def tell_pins(self, dataset: str) -> None:
        """Tell the node which versions of a dataset it must keep, unless it was told the same before."""
        pins = self._pins.message(self.name, dataset)
        if self._told_pins.get(dataset) != pins.versions:
            self._told_pins[dataset] = pins.versions
            self._link.send(pins)

    async def _flipped(self, flipped: Flipped) -> None:
        await self._come_back(flipped.dataset)
        await self._flips.note(self.name, flipped)
        self._link.send(Noted(flipped.dataset, flipped.cycle))
