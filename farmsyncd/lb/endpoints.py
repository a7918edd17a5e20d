"""Where a node is connected to, as a Twisted endpoint."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from farmsyncd.lb.config import NodeAddress


def endpoint_of(reactor: Any, address: NodeAddress, timeout_s: float) -> IStreamClientEndpoint:
    """Where to connect to for ``address``; a name is looked up each time, an address never."""
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout_s)
    try:
        version = ipaddress.ip_address(address.host.partition("%")[0]).version
    except ValueError:
        return HostnameEndpoint(reactor, address.host, address.port, timeout_s)
    kind = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
    return kind(reactor, address.host, address.port, timeout_s)


Announce = Callable[[str], bytes]
"""What a node of this name is told first."""


@attrs.frozen
class Way:
    """How the balancer itself reaches nodes: with ``announce``'s words before its own, if there are any."""

    reactor: Any
    timeout_s: float
    announce: Announce | None = None

    def to(self, address: NodeAddress) -> IStreamClientEndpoint:
        """Where to connect to for ``address``."""
        endpoint = endpoint_of(self.reactor, address, self.timeout_s)
        header = self.announce(address.name) if self.announce is not None else b""
        return _Announced(endpoint, header) if header else endpoint


@implementer(IStreamClientEndpoint)
@attrs.frozen
class _Announced:
    """Says ``header`` on each connection before whoever made it knows of it."""

    endpoint: IStreamClientEndpoint
    header: bytes

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803 - IStreamClientEndpoint
        """Connect, and say it."""
        return self.endpoint.connect(protocolFactory).addCallback(self._say)

    def _say(self, protocol: Any) -> Any:
        protocol.transport.write(self.header)
        return protocol
