"""Where connections come in: what a peer says it is decides who serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory

from farmsyncd.core.messages.base import Message, Side
from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.edges.link import Link, LinkSettings
from farmsyncd.edges.timing.farmclock import FarmClock


class Role(Protocol):
    """Serves one link, once it is known what for."""

    def received(self, message: Message) -> None:
        """A message came."""

    def lost(self, reason: str, /) -> None:
        """The link is gone."""


Roles = Mapping[str, Callable[[Link, Hello], Role]]


class Gate:
    """The session of one link: a person's at first, a role's once the peer has greeted.

    Everybody is told the time. ``stamp`` is read whenever bytes arrive, for the probes among them.
    """

    def __init__(self, roles: Roles, person: Callable[[Link], Role], clock: FarmClock) -> None:
        self.stamp = clock.now_ns
        self._clock = clock
        self._roles = roles
        self._person = person
        self._role: Role | None = None

    def greeted(self, link: Link, hello: Hello) -> None:
        """The peer has said what it is."""
        before, self._role = self._role, None
        if before is not None:
            before.lost("greeted")
        self._role = self._roles[hello.role](link, hello)

    def received(self, link: Link, message: Message) -> None:
        """A message came."""
        if isinstance(message, Time):
            link.send(self._now())
            return
        if self._role is None:
            self._role = self._person(link)
        self._role.received(message)

    def _now(self) -> Now:
        farm_ns = self._clock.now_ns()
        utc = datetime.fromtimestamp(self._clock.to_utc_ns(farm_ns) / 1e9, UTC)
        return Now(farm_ns, self._clock.epoch, utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    def lost(self, link: Link, reason: str) -> None:  # noqa: ARG002  a Session's signature
        """The link is gone."""
        if self._role is not None:
            self._role.lost(reason)


class LinkFactory(Factory):
    """Makes the server's end of each connection, and knows them all; ``new_gate`` makes the session of one."""

    noisy = False

    def __init__(self, me: Hello, clock: IReactorTime, settings: LinkSettings, gate: Callable[[], Gate]) -> None:
        self._me = me
        self._clock = clock
        self._settings = settings
        self.new_gate = gate
        self._links: set[Link] = set()

    @property
    def links(self) -> frozenset[Link]:
        """All connections."""
        return frozenset(self._links)

    def buildProtocol(self, addr: IAddress | None) -> Link:  # noqa: N802, ARG002  IProtocolFactory's
        """The link of a new connection."""
        link = Link(self.new_gate(), self._me, Side.SERVER, self._clock, self._settings)
        self._links.add(link)
        link.when_lost().addCallback(lambda _: self._links.discard(link))
        return link
