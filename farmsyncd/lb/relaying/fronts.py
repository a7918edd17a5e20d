"""The fronts of a balancer: what makes one of a listening socket, counts their clients, and ends them all."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList

from farmsyncd.core.affinity import source_of
from farmsyncd.lb.relaying.front import Front
from farmsyncd.lb.relaying.prologue import Prologue
from farmsyncd.lb.relaying.seating import Dispatcher
from farmsyncd.lb.relaying.settings import RelaySettings


class Fronts(Service):
    """Makes fronts that share ``dispatcher``; see :class:`Front` for the rest. Its length is the number of clients."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        reactor: Any,
        settings: RelaySettings,
        prologue: Prologue | None = None,
        source_of: Callable[[str], bytes] = source_of,
    ) -> None:
        self._dispatcher = dispatcher
        self._reactor = reactor
        self._settings = settings
        self._prologue = prologue
        self._source_of = source_of
        self._fronts: list[Front] = []

    def __len__(self) -> int:
        return sum(map(len, self._fronts))

    def made(self, listener: socket.socket) -> Front:
        """A front for ``listener``, to be started."""
        front = Front(listener, self._dispatcher, self._reactor, self._settings, self._prologue, self._source_of)
        self._fronts.append(front)
        return front

    def finish(self, limit_s: float) -> Deferred[None]:
        """See :meth:`Front.finish`, for all of them."""
        fronts, self._fronts = self._fronts, []
        return DeferredList([front.finish(limit_s) for front in fronts]).addCallback(lambda _: None)

    def stopService(self) -> Deferred[None]:  # noqa: N802 - IService
        """Reset all clients that are left: what was under way is not whole."""
        super().stopService()  # type: ignore[no-untyped-call]
        return self.finish(0)
