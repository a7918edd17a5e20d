"""Which node a source was sent to before: bounded, expiring, the least recently used forgotten first."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

import attrs

_IPV6_NETWORK_BYTES = 8


def source_of(host: str) -> bytes:
    """What counts as one source: an IPv4 address, or the /64 network of an IPv6 address, which is one customer's.

    Raises ValueError when ``host`` is no address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped.packed
        return address.packed[:_IPV6_NETWORK_BYTES]
    return address.packed


@attrs.define(eq=False)
class Stay:
    """A source at its node; made by :meth:`Affinity.hold`."""

    source: bytes
    node: str
    used_ns: int
    connections: int = 0


class Affinity:
    """Source to node, for at most ``capacity`` sources, each until ``lifetime_ns`` after its last connection ended.

    Times are of any clock that does not go back, in nanoseconds.
    """

    def __init__(self, capacity: int, lifetime_ns: int) -> None:
        self._capacity = capacity
        self._lifetime_ns = lifetime_ns
        self._stays: OrderedDict[bytes, Stay] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._stays)

    def find(self, source: bytes, now_ns: int) -> str | None:
        """The node of ``source``; None when it has none."""
        self._expire(now_ns)
        stay = self._stays.get(source)
        return None if stay is None else stay.node

    def hold(self, source: bytes, node: str, now_ns: int) -> Stay:
        """A connection of ``source`` goes to ``node``, and so will the later ones. To be released when it ends."""
        stay = self._stays.get(source)
        if stay is None or stay.node != node:
            stay = self._stays[source] = Stay(source, node, now_ns)
            if len(self._stays) > self._capacity:
                self._stays.popitem(last=False)
        self._use(stay, now_ns)
        stay.connections += 1
        return stay

    def release(self, stay: Stay, now_ns: int) -> None:
        """A connection has ended."""
        stay.connections -= 1
        if self._stays.get(stay.source) is stay:
            self._use(stay, now_ns)

    def _use(self, stay: Stay, now_ns: int) -> None:
        stay.used_ns = now_ns
        self._stays.move_to_end(stay.source)

    def _expire(self, now_ns: int) -> None:
        while self._stays:
            stay = next(iter(self._stays.values()))
            if now_ns - stay.used_ns < self._lifetime_ns:
                return
            if stay.connections:
                self._use(stay, now_ns)
            else:
                del self._stays[stay.source]
