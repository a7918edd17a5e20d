"""Listening sockets that outlive what listens there: kept while a successor tries, and passed on to it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from farmsyncd.lb.processes import sockets
from farmsyncd.lb.relaying import binding

_BACKLOG = 50


class Held(Protocol):
    """Sockets of one side of the balancer. A successor that says the same in ``described`` is passed them."""

    described: str
    held: list[socket.socket]
    """What is held, or was passed on by somebody else; nothing before the side first listens."""

    def release(self, *, passed_on: bool) -> None:
        """Hold them no more. When they were not ``passed_on``, nobody listens there any more."""


Sides = Mapping[str, Held]
"""By a name that both balancers know."""


@implementer(IStreamServerEndpoint)
class HeldEndpoint:
    """Listens at ``described``, and holds the socket until :meth:`release`; so it can listen there again at any time.

    Only tcp endpoints are held: others are listened at as usual.
    """

    def __init__(self, described: str, reactor: Any) -> None:
        self.held: list[socket.socket] = []
        self.described = described
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - the interface
        """See IStreamServerEndpoint."""
        if not self.described.startswith(("tcp:", "tcp6:")):
            usual: IStreamServerEndpoint = serverFromString(self._reactor, self.described)
            listening: Deferred[IListeningPort] = usual.listen(protocolFactory)
            return listening
        return execute(self._listen, protocolFactory)

    def release(self, *, passed_on: bool) -> None:  # noqa: ARG002 - a port leaves nothing behind
        """See :class:`Held`."""
        sockets.close(self.held)
        self.held = []

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if not self.held:
            bound = binding.bind(self.described)
            bound.setblocking(False)
            bound.listen(_BACKLOG)
            self.held = [bound]
        one = self.held[0]
        port: IListeningPort = self._reactor.adoptStreamPort(one.fileno(), one.family, factory)
        return port
