"""A listening socket that outlives the port made of it: kept while a successor tries, and passed on to it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from farmsyncd.lb.relaying import binding

_BACKLOG = 50


@implementer(IStreamServerEndpoint)
class HeldEndpoint:
    """Listens at ``described``, and holds the socket until :meth:`close`; so it can listen there again at any time.

    Only tcp endpoints are held: others are listened at as usual.
    """

    def __init__(self, described: str, reactor: Any) -> None:
        self.held: socket.socket | None = None
        """What is held, or was passed on by somebody else."""
        self.described = described
        self._reactor = reactor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803 - the interface
        """See IStreamServerEndpoint."""
        if not self.described.startswith(("tcp:", "tcp6:")):
            usual: IStreamServerEndpoint = serverFromString(self._reactor, self.described)
            listening: Deferred[IListeningPort] = usual.listen(protocolFactory)
            return listening
        return execute(self._listen, protocolFactory)

    def close(self) -> None:
        """Hold it no more."""
        if self.held is not None:
            self.held.close()
            self.held = None

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if self.held is None:
            bound = binding.bind(self.described)
            bound.setblocking(False)
            bound.listen(_BACKLOG)
            self.held = bound
        port: IListeningPort = self._reactor.adoptStreamPort(self.held.fileno(), self.held.family, factory)
        return port
