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


@attrs.define
class _Entry:
    node: str
    used_ns: int


class Affinity:
    """Source to node, for at most ``capacity`` sources, each until ``lifetime_ns`` after its last use.

    Times are of any clock that does not go back, in nanoseconds.
    """

    def __init__(self, capacity: int, lifetime_ns: int) -> None:
        self._capacity = capacity
        self._lifetime_ns = lifetime_ns
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, source: bytes, now_ns: int) -> str | None:
        """The node of ``source``, which is used by that; None when it has none."""
        self._expire(now_ns)
        entry = self._entries.get(source)
        if entry is None:
            return None
        self._use(source, entry, now_ns)
        return entry.node

    def assign(self, source: bytes, node: str, now_ns: int) -> None:
        """Send ``source`` to ``node`` from now on."""
        self._expire(now_ns)
        self._use(source, _Entry(node, now_ns), now_ns)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def touch(self, source: bytes, node: str, now_ns: int) -> None:
        """A connection of ``source`` to ``node`` was alive until now; means nothing if it has another node by now."""
        entry = self._entries.get(source)
        if entry is not None and entry.node == node:
            self._use(source, entry, now_ns)

    def _use(self, source: bytes, entry: _Entry, now_ns: int) -> None:
        entry.used_ns = now_ns
        self._entries[source] = entry
        self._entries.move_to_end(source)

    def _expire(self, now_ns: int) -> None:
        while self._entries:
            entry = next(iter(self._entries.values()))
            if now_ns - entry.used_ns < self._lifetime_ns:
                return
            self._entries.popitem(last=False)
