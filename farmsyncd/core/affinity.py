"""Which node a source was sent to before: bounded, expiring, the least recently used forgotten first."""

from __future__ import annotations

import ipaddress
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import attrs

IPV4_BITS, IPV6_BITS = 32, 128
Record = tuple[bytes, str, int]
"""A source, its node, and when it was last used, in nanoseconds of the table's clock."""
_SECOND_CHANCES = 8
_EXPIRED_AT_ONCE = 16


def source_of(host: str, prefix4: int = IPV4_BITS, prefix6: int = 64) -> bytes:
    """What counts as one source: the network of so many bits that an address is in.

    By default an IPv4 address is one by itself, and of IPv6 the /64 network, which is one customer's. The result has 4
    bytes for IPv4 and 16 for IPv6. Raises ValueError when ``host`` is no address.
    """
    parts = host.split(".")
    if len(parts) == 4 and prefix4 == IPV4_BITS and "".join(parts).isdecimal() and host.isascii():
        return bytes(map(int, parts))
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return _network(address.packed, prefix6)
        address = address.ipv4_mapped
    return _network(address.packed, prefix4)


def shown(source: bytes, prefix4: int = IPV4_BITS, prefix6: int = 64) -> str:
    """A source for people: an address, with its prefix where it stands for a network; ``-`` for one without any."""
    if len(source) not in {4, 16}:
        return "-"
    prefix, whole = (prefix4, IPV4_BITS) if len(source) == 4 else (prefix6, IPV6_BITS)
    return f"{ipaddress.ip_address(source)}" + (f"/{prefix}" if prefix < whole else "")


def _network(packed: bytes, prefix: int) -> bytes:
    rest = 8 * len(packed) - prefix
    return packed if rest <= 0 else (int.from_bytes(packed) >> rest << rest).to_bytes(len(packed))


@attrs.define(eq=False)
class Stay:
    """A source at its node; made by :meth:`Affinity.hold`. Times in nanoseconds of the table's clock."""

    source: bytes
    node: str
    since_ns: int
    used_ns: int
    why: str = ""
    """What sent it there, for people who ask."""
    former: str | None = None
    """The node that it was moved from."""
    connections: int = 0
    """Those that are open at this moment."""
    taken: bool = True
    """Whether the node has taken a connection of the source; one on trial is retracted when it does not."""
    home: Stay | None = None
    """While it is on trial: the stay that it is to replace."""


class Affinity:
    """Source to node, for at most ``capacity`` sources, each until ``lifetime_ns`` after its last connection ended.

    Times are of any clock that does not go back, in nanoseconds.
    """

    def __init__(self, capacity: int, lifetime_ns: int) -> None:
        self.evicted = 0
        """How many were forgotten to make room, since the beginning."""
        self._capacity = capacity
        self._lifetime_ns = lifetime_ns
        self._stays: OrderedDict[bytes, Stay] = OrderedDict()  # the least recently used first, ordered by used_ns
        self._per_node: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._stays)

    def find(self, source: bytes, now_ns: int) -> Stay | None:
        """The stay of ``source``; None when it has no node."""
        self._expire(now_ns)
        stay = self._stays.get(source)
        if stay is not None and not stay.connections and now_ns - stay.used_ns >= self._lifetime_ns:
            self._forget(stay)
            return None
        return stay

    def has(self, stay: Stay) -> bool:
        """Whether it is where its source is now; else the source has moved, or is forgotten."""
        return self._stays.get(stay.source) is stay

    def join(self, stay: Stay, now_ns: int) -> None:
        """One more connection of a source at its node. To be released when it ends."""
        stay.connections += 1
        self._use(stay, now_ns)

    def hold(self, source: bytes, node: str, now_ns: int, why: str = "") -> Stay:
        """A connection of ``source`` goes to ``node``, on trial until it is taken. To be released when it ends."""
        stay = self._stays.get(source)
        if stay is None or stay.node != node:
            former = self._forget(stay)
            home = stay if stay is None or stay.taken else stay.home
            stay = Stay(source, node, now_ns, now_ns, why, former, taken=False, home=home)
            self._put(stay)
            if len(self._stays) > self._capacity:
                self._make_room(now_ns)
        self.join(stay, now_ns)
        return stay

    def took(self, stay: Stay) -> None:
        """The node has taken a connection: the source's later ones go there too."""
        stay.taken, stay.home = True, None

    def retract(self, stay: Stay, now_ns: int) -> None:
        """The node has not taken the connection: a source that never was there belongs where it was before."""
        if stay.taken or stay.connections or not self.has(stay):
            return
        self._forget(stay)
        if stay.home is not None:
            self._put(stay.home)
            self._use(stay.home, now_ns)

    def release(self, stay: Stay, now_ns: int) -> None:
        """A connection has ended."""
        stay.connections -= 1
        if self.has(stay):
            self._use(stay, now_ns)

    def newest(self, count: int) -> list[Stay]:
        """At most so many stays, the most recently used first."""
        return [stay for stay, _ in zip(reversed(self._stays.values()), range(count), strict=False)]

    def used_since(self, since_ns: int) -> list[Stay]:
        """The stays that were used at that time or later, the most recently used first."""
        return list(itertools.takewhile(lambda stay: stay.used_ns >= since_ns, reversed(self._stays.values())))

    def stays(self) -> list[Stay]:
        """All of them, the least recently used first."""
        return list(self._stays.values())

    def sources_of(self, node: str) -> int:
        """How many sources a node has."""
        return self._per_node.get(node, 0)

    def dump(self, now_ns: int | None = None) -> Iterator[Record]:
        """All that a later table has to know, the least recently used first; the table may change meanwhile.

        With ``now_ns``, a source that has a connection open counts as used at that time.
        """
        for stay in list(self._stays.values()):
            open_now = now_ns is not None and stay.connections > 0
            yield stay.source, stay.node, now_ns if open_now and now_ns is not None else stay.used_ns

    def load(self, records: Iterable[Record], now_ns: int, why: str = "") -> int:
        """Take over what another table dumped, the least recently used first; how many sources that were new.

        A source that is known here stays where it is. What was used in the future counts as used now: the clock is
        another one. Of what is too much, the least recently used is left out.
        """
        new: dict[bytes, Stay] = {}
        for source, node, used_ns in records:
            at_ns = min(used_ns, now_ns)
            if source not in self._stays and now_ns - at_ns < self._lifetime_ns:
                new[source] = Stay(source, node, at_ns, at_ns, why)
        room = max(0, self._capacity - len(self._stays))
        taken = sorted(new.values(), key=_used_ns)[max(0, len(new) - room) :]
        for stay in taken:
            self._per_node[stay.node] = self._per_node.get(stay.node, 0) + 1
        merged = sorted([*taken, *self._stays.values()], key=_used_ns)
        self._stays = OrderedDict((stay.source, stay) for stay in merged)
        return len(taken)

    def _put(self, stay: Stay) -> None:
        self._stays[stay.source] = stay
        self._per_node[stay.node] = self._per_node.get(stay.node, 0) + 1

    def _make_room(self, now_ns: int) -> None:
        """Forget one source: one that has no open connection, if such a one is near."""
        self.evicted += 1
        for _ in range(min(_SECOND_CHANCES, len(self._stays) - 2)):  # the last one has just come
            oldest = next(iter(self._stays.values()))
            if not oldest.connections:
                break
            self._use(oldest, now_ns)
        self._forget(next(iter(self._stays.values())))

    def _use(self, stay: Stay, now_ns: int) -> None:
        stay.used_ns = now_ns
        self._stays.move_to_end(stay.source)

    def _forget(self, stay: Stay | None) -> str | None:
        """Take a stay out, if it is one; its node."""
        if stay is None:
            return None
        del self._stays[stay.source]
        left = self._per_node[stay.node] - 1
        if left:
            self._per_node[stay.node] = left
        else:
            del self._per_node[stay.node]
        return stay.node

    def _expire(self, now_ns: int) -> None:
        """Forget whose time is over; a few at a time, so that nobody waits after a quiet night."""
        for _ in range(min(_EXPIRED_AT_ONCE, len(self._stays))):
            stay = next(iter(self._stays.values()))
            if now_ns - stay.used_ns < self._lifetime_ns:
                return
            if stay.connections:
                self._use(stay, now_ns)
            else:
                self._forget(stay)


def _used_ns(stay: Stay) -> int:
    return stay.used_ns
