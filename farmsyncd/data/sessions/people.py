"""What everybody may ask, with or without a greeting: TIME, SCHEDULE, DATASETS. A person with netcat is served here."""

from __future__ import annotations

from datetime import UTC, datetime

from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.schedule import Datasets, Schedule
from farmsyncd.data.followers import Followers
from farmsyncd.data.keeper import Keeper, plan_message, unknown_dataset
from farmsyncd.data.sessions.turns import Turns
from farmsyncd.edges.link import Link
from farmsyncd.edges.timing.farmclock import FarmClock


class Person:
    """A peer that may ask what needs no greeting, and nothing else."""

    def __init__(self, link: Link, keeper: Keeper, followers: Followers, clock: FarmClock) -> None:
        self.link = link
        self.turns = Turns(link)
        self._keeper = keeper
        self._followers = followers
        self._clock = clock

    def received(self, message: Message) -> None:
        """Answer a message, or turn it down."""
        match message:
            case Time():
                self.link.send(self._now())
            case Datasets():
                self.link.send(self._followers.datasets())
            case Schedule():
                self.turns.take(message, lambda: self._schedule(message.dataset))
            case _:
                self.link.send(not_for(message, "a peer in this role"))

    def lost(self, _reason: str) -> None:
        """The link is gone."""
        self.turns.end()

    def _now(self) -> Now:
        farm_ns = self._clock.now_ns()
        utc = datetime.fromtimestamp(self._clock.to_utc_ns(farm_ns) / 1e9, UTC)
        return Now(farm_ns, self._clock.epoch, utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    async def _schedule(self, dataset: str) -> None:
        course = await self._keeper.current(dataset, self.link.address)
        if course is None:
            raise unknown_dataset(dataset, self._keeper.courses)
        self.link.send(plan_message(course))


def not_for(message: Message, whom: str) -> No:
    """The answer to a message that is none of the peer's business."""
    return No("refused", message.VERB, f"{message.VERB} is not for {whom}".encode())
