"""Who is on the other end of a transport, and how its socket is set up for a conversation."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITCPTransport


def peer_of(transport: Any) -> str:
    """The peer's address, ``HOST:PORT``, for people. Over TCP, bytes leave at once, and one that vanished is found."""
    peer = transport.getPeer()
    if not isinstance(peer, IPv4Address | IPv6Address):
        return "a local socket"
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
    host = f"[{peer.host}]" if ":" in peer.host else peer.host
    return f"{host}:{peer.port}"
