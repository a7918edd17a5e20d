"""Where a node is connected to, as a Twisted endpoint."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IStreamClientEndpoint

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
