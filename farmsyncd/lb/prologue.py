"""The PROXY protocol as a balancer is configured to speak it: to its nodes, and with a balancer in front of it.

Where a header is expected, each connection must begin with one: whether a client came directly or through the balancer
in front is never guessed, since a client can write a header, too. So the ``trusted`` networks are those of the
balancers in front; a connection from elsewhere is reset. Who is connected by a Unix socket is trusted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping

from twisted.logger import Logger

from farmsyncd.core import proxyheader
from farmsyncd.core.proxyheader import Fault, HeaderError
from farmsyncd.lb.config import BalancerConfig, Network
from farmsyncd.lb.relaying.prologue import Accepted
from farmsyncd.lb.relaying.sockets import Address

NONE, V1, V2 = "none", "v1", "v2"
_WRITE = {V1: proxyheader.write_v1, V2: proxyheader.write_v2}
_VERSIONS = {V1: 1, V2: 2}
_QUIET_NS = 10_000_000_000
_KNOWN = 1024


class ProxyPrologue:
    """Writes headers of version ``send`` (``v1``, ``v2`` or ``none``), or of the version of a node's own in ``nodes``.

    ``trusted`` are the networks of those who may send headers, None when none are expected. ``now_ns`` is a clock that
    does not go back.
    """

    _log = Logger()

    def __init__(
        self,
        send: str,
        nodes: Mapping[str, str],
        trusted: Iterable[Network] | None,
        now_ns: Callable[[], int],
    ) -> None:
        self.expects = trusted is not None
        self.refusals = dict.fromkeys(Fault, 0)
        """How many connections were reset because of what they began with, by what was wrong with it."""
        self._send = send
        self._nodes = nodes
        self._trusted = tuple(trusted or ())
        self._now_ns = now_ns
        self._told = 0
        self._tell_again_ns: int | None = None
        self._peers: dict[str, bool] = {}  # what was decided about the few who connect

    def read(self, buffer: bytes, peer: Address) -> Accepted | None:
        """See :class:`farmsyncd.lb.relaying.prologue.Prologue`."""
        if not self._may(peer):
            raise HeaderError("it is in none of the networks that may send PROXY headers (proxy-from)", Fault.UNTRUSTED)
        header = proxyheader.read(buffer)
        if header is None:
            return None
        return Accepted(header.source, header.destination, buffer[header.length :])

    def refused(self, peer: Address, fault: Fault, why: str) -> None:
        """Count it, and tell of it, but not of each one while there are many."""
        self.refusals[fault] += 1
        now_ns = self._now_ns()
        if self._tell_again_ns is not None and now_ns < self._tell_again_ns:
            return
        self._tell_again_ns = now_ns + _QUIET_NS
        refused = sum(self.refusals.values())
        since, self._told = refused - self._told, refused
        self._log.warn(
            "a connection from {peer} is reset: {why}" + ("" if since == 1 else "; so were {others} others before it"),
            peer=shown(peer),
            why=why,
            others=since - 1,
        )

    def header(self, client: Address, server: Address, node: str) -> bytes:
        """See :class:`farmsyncd.lb.relaying.prologue.Prologue`."""
        write = _WRITE.get(self._nodes.get(node, self._send))
        return b"" if write is None else write(_plain(client), _plain(server))

    def own_header(self, node: str) -> bytes:
        """What ``node`` is told first of a connection that the balancer makes for itself; may be nothing."""
        version = _VERSIONS.get(self._nodes.get(node, self._send))
        return b"" if version is None else proxyheader.write_own(version)

    def _may(self, peer: Address) -> bool:
        if not isinstance(peer, tuple):
            return True
        known = self._peers.get(peer[0])
        if known is None:
            if len(self._peers) >= _KNOWN:
                self._peers.clear()
            known = self._peers[peer[0]] = self._within(peer[0])
        return known

    def _within(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted if network.version == address.version)


def prologue_of(config: BalancerConfig, now_ns: Callable[[], int]) -> ProxyPrologue | None:
    """What is said first, as configured; None when nothing is said to anybody, and nothing expected."""
    nodes = {name: node.send_proxy for name, node in config.nodes.items() if node.send_proxy is not None}
    if not config.accept_proxy and {config.send_proxy, *nodes.values()} == {NONE}:
        return None
    return ProxyPrologue(config.send_proxy, nodes, config.proxy_from if config.accept_proxy else None, now_ns)


def shown(peer: Address) -> str:
    """An address for people."""
    if not isinstance(peer, tuple):
        return "a Unix socket"
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def _plain(address: Address | bytes) -> proxyheader.Address:
    """As the headers have it; a name that is no path (an abstract one is bytes) counts as none."""
    if isinstance(address, tuple):
        return address[0], address[1]
    return address if isinstance(address, str) else ""
