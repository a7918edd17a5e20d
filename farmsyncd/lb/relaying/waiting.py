"""A client that waits for a node: when it is reset or gone meanwhile, nobody waits any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farmsyncd.lb.relaying.events import ERROR, HANGUP, ONLY_LOSS
from farmsyncd.lb.relaying.seating import Request

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.relay import Relay


class Waiting:
    """Watches the client of ``relay`` while ``request`` is not answered. Its end of file alone is no reason to go."""

    __slots__ = ("_relay", "_request")

    def __init__(self, relay: Relay, request: Request | None) -> None:
        self._relay = relay
        self._request = request
        front = relay.front
        events = relay.common.events
        events.handlers[front.fd] = self
        if front.mask == 0:
            front.mask = ONLY_LOSS
            events.watch(front.fd, ONLY_LOSS)

    def event(self, flags: int) -> None:
        """The client's socket has broken, or there is something to read, later."""
        if flags & (ERROR | HANGUP):
            self._relay.abort()

    def fail(self) -> None:
        """The balancer is at fault."""
        self._relay.abort()

    def cancel(self) -> None:
        """The client is gone, or the balancer ends."""
        if self._request is not None:
            self._request.cancel()
