"""The connection that follows the schedule: obeys what is pushed, asks now and then, tells how the node stands.

All that is news is told at once, by either side. What is asked and told besides is for what neither side can know to
be lost, and is rare: a farm's idle nodes are what its data server is busy with most of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from farmsyncd.core.messages import Message
from farmsyncd.core.messages.base import Side
from farmsyncd.core.messages.greeting import Hello, No
from farmsyncd.core.messages.schedule import (
    Datasets,
    DatasetsAre,
    Flipped,
    Noted,
    Pins,
    Plan,
    Schedule,
    Standing,
)  # fmt: skip
from farmsyncd.edges.link import Link, reconnecting
from farmsyncd.errors import PeerError

LOOK_S: Final = 5.0
"""How long at most until the node looks again what there is to do, which costs nobody else anything."""
RESTATED: Final = 2
"""With each so manieth asking, a standing is told that is no news: its clock comparison's numbers have moved."""
BETTER: Final = 4
BETTER_NS: Final = 1_000_000
"""A clock comparison's bound that has shrunk so many times, and by so much, is news."""


class Followed(Protocol):
    """One dataset on this node, as the follower needs it."""

    def hear(self, plan: Plan) -> None:
        """A plan came."""

    def keep(self, versions: tuple[str, ...]) -> None:
        """Pins came."""

    def noted(self, cycle: int) -> None:
        """A flip's report is safe."""

    def connected(self) -> None:
        """A new connection stands."""

    def reconsider(self) -> None:
        """Time has passed."""

    def standing(self) -> Standing:
        """How this dataset stands."""

    def flips(self) -> list[Flipped]:
        """The flips that are to be told."""


class Follower(Service):
    """Follows the schedules of ``datasets()``; ``follow`` is called with each name of DATASETS-ARE.

    ``every_s`` is about how often it asks, since plans are pushed at once; each node's period is a little different, so
    that a farm that was started at once does not ask at once for ever.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        hello: Hello,
        datasets: Callable[[], Iterable[tuple[str, Followed]]],
        follow: Callable[[tuple[str, ...]], None],
        wakes: IReactorTime,
        random: Callable[[], float],
        every_s: float,
        *,
        all_datasets: bool,
    ) -> None:
        self._hello = hello
        self._datasets = datasets
        self._follow = follow
        self._wakes = wakes
        self._all = all_datasets
        self._looks = max(1, math.ceil(every_s / LOOK_S))  # until it asks
        self._look_s = every_s / self._looks * (0.8 + 0.4 * random())
        self._looked = 0
        self._asked = 0
        self._reconnecting = reconnecting(endpoint, self._build, wakes, random)
        self._link: Link | None = None
        self._told: dict[str, Standing] = {}
        self._reported: dict[tuple[str, int], Flipped] = {}
        self._loop = LoopingCall(self._tick)
        self._loop.clock = wakes

    @property
    def connected(self) -> bool:
        """Whether the data server is there."""
        return self._link is not None

    # Service

    def startService(self) -> None:  # noqa: N802 - IService
        """Connect, and ask from then on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reconnecting.startService()
        self._loop.start(self._look_s, now=False)

    def stopService(self) -> Deferred[object]:  # noqa: N802 - IService
        """Fires when the connection is gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()
        return self._reconnecting.stopService()

    def _build(self) -> Link:
        return Link(self, self._hello, Side.CLIENT, self._wakes)

    # What the node says

    def tell(self, dataset: str) -> None:
        """A dataset's standing may have changed, or it may have flips to report: tell what was not told."""
        if self._link is None:
            return
        for name, followed in self._datasets():
            if name == dataset:
                self._say(name, followed, again=False)

    def ask(self, dataset: str) -> None:
        """Ask for a dataset's plan now."""
        if self._link is not None:
            self._link.send(Schedule(dataset))

    def _say(self, name: str, followed: Followed, *, again: bool) -> None:
        assert self._link is not None
        for flip in followed.flips():
            key = name, flip.cycle
            if key not in self._reported:
                self._reported[key] = flip
                self._link.send(flip)
        standing = followed.standing()
        told = self._told.get(name)
        if again or _news(told) != _news(standing) or _much_better_known(told, standing):
            self._told[name] = standing
            self._link.send(standing)

    def _tick(self) -> None:
        try:
            for _, followed in self._datasets():
                followed.reconsider()
            self._looked += 1
            if self._link is not None and self._looked % self._looks == 0:
                self._asked += 1
                self._ask_all(again=self._asked % RESTATED == 0)
        except Exception:  # a LoopingCall ends at the first exception
            self.log.failure("following the schedule met a fault of ours")

    def _ask_all(self, *, again: bool) -> None:
        assert self._link is not None
        self._reported.clear()  # what has not been noted by now is told once more
        if self._all:
            self._link.send(Datasets())
        for name, followed in self._datasets():
            if self._link is None:
                return
            self._link.send(Schedule(name))
            self._say(name, followed, again=again)

    # Session

    def greeted(self, link: Link, hello: Hello) -> None:
        """The data server is there."""
        self.log.info("following the schedule of {name} at {address}", name=hello.name, address=link.address)
        self._link = link
        self._told.clear()
        for _, followed in self._datasets():
            followed.connected()
        self._ask_all(again=True)

    def received(self, link: Link, message: Message) -> None:
        """Pass on what came."""
        del link
        match message:
            case Plan():
                self._for(message.dataset, lambda followed: followed.hear(message))
            case Pins():
                self._for(message.dataset, lambda followed: followed.keep(message.versions))
            case Noted():
                self._reported.pop((message.dataset, message.cycle), None)
                self._for(message.dataset, lambda followed: followed.noted(message.cycle))
            case DatasetsAre():
                if self._all:
                    self._follow(message.names)
            case No():
                why = message.why.decode("utf-8", "replace")
                self.log.warn("the data server refused {verb}: {why}", verb=message.verb, why=why)
            case _:
                raise PeerError(f"expected news of the schedule, and {message.VERB} came")

    def lost(self, link: Link, reason: str) -> None:
        """The data server went away; what is known of its schedule stands."""
        if self._link is link:
            self._link = None
            if self.running:
                self.log.warn("the data server is away: {reason}; what it planned stands", reason=reason)

    def _for(self, dataset: str, do: Callable[[Followed], None]) -> None:
        for name, followed in self._datasets():
            if name == dataset:
                do(followed)


def _news(standing: Standing | None) -> tuple[object, ...]:
    """What of a standing is worth telling at once: the clock comparison's numbers change all the time."""
    if standing is None:
        return ()
    return (
        standing.state,
        standing.cycle,
        standing.version,
        standing.staged_cycle,
        standing.staged_version,
        standing.detail,
        standing.offset is None,
    )


def _much_better_known(told: Standing | None, standing: Standing) -> bool:
    """Whether the clock comparison has become far better than was told, as it does in the first second."""
    if told is None or told.error_bound is None or standing.error_bound is None:
        return False
    return told.error_bound > max(BETTER * standing.error_bound, standing.error_bound + BETTER_NS)
