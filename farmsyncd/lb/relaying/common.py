"""What all relays of a front share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

import attrs
from twisted.logger import Logger

from farmsyncd.lb.relaying.descriptors import Reserve
from farmsyncd.lb.relaying.events import Events
from farmsyncd.lb.relaying.names import Names
from farmsyncd.lb.relaying.pipes import PipePool
from farmsyncd.lb.relaying.prologue import Prologue
from farmsyncd.lb.relaying.seating import Dispatcher
from farmsyncd.lb.relaying.settings import RelaySettings
from farmsyncd.lb.relaying.vigil import Vigil, Watched

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.relay import Relay


class Door(Protocol):
    """Where the clients of some relays come in."""

    def relay_ended(self) -> None:
        """A relay is over, and its descriptors are free in a moment."""

    def out_of_descriptors(self) -> None:
        """There was none for a relay."""


@attrs.define(eq=False)
class Common:
    """Collaborators, and what is open. ``source_of`` makes of an address what counts as one source."""

    _log = Logger()

    events: Events
    dispatcher: Dispatcher
    names: Names
    settings: RelaySettings
    prologue: Prologue | None
    source_of: Callable[[str], bytes]
    door: Door
    pipes: PipePool = attrs.field(init=False)
    reserve: Reserve = attrs.field(init=False, factory=Reserve)
    view: memoryview = attrs.field(init=False)
    """Where all read into: what is in it has been carried on, or put aside, before anybody else reads."""
    open: Vigil[Relay] = attrs.field(init=False)
    half_closed: Vigil[Relay] = attrs.field(init=False)
    connecting: Vigil[Watched] = attrs.field(init=False)
    greeting: Vigil[Watched] = attrs.field(init=False)
    served: bool = attrs.field(init=False, default=True)
    """Whether the last client found a node."""

    def __attrs_post_init__(self) -> None:
        self.pipes = PipePool(self.settings.pipes, self.settings.large_pipes, self.settings.pipe_size)
        self.view = memoryview(bytearray(self.settings.piece))
        self.open = Vigil(self.settings.idle_ns)
        self.half_closed = Vigil(self.settings.half_closed_ns)
        self.connecting = Vigil(self.settings.connect_ns)
        self.greeting = Vigil(self.settings.greeting_ns)

    def sweep(self, now_ns: int) -> None:
        """Expire what has lasted too long."""
        for vigil in (self.connecting, self.greeting, self.half_closed, self.open):
            vigil.sweep(now_ns)

    def found_nobody(self, tried: Collection[str]) -> None:
        """A client got no node."""
        if self.served:
            self.served = False
            names = ", ".join(sorted(tried)) or "none"
            self._log.warn("no node takes a client's connection; tried {tried}: it is reset", tried=names)

    def found_somebody(self) -> None:
        """A client got a node, after others got none."""
        self.served = True
        self._log.info("clients find a node again")

    def close(self) -> None:
        """Give back what is held for all."""
        self.pipes.close()
        self.reserve.close()
