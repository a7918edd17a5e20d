"""Where nodes are whose address is a name: looked up, in a thread of the reactor's, and kept for a few seconds.

A node does not go because its name server does: what was known last counts when a look-up finds nothing, and while it
is not old it counts until a look-up has found anything else, so that clients do not wait for name servers.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from farmsyncd.lb.relaying.sockets import Target, target_of

KEPT_NS = 5_000_000_000
OLD_NS = 60_000_000_000
"""From so long ago on, who asks waits for the look-up."""
_MOST = 4096  # farms are smaller; those that change their addresses all day must not fill the memory
Found = Callable[[Sequence[Target]], None]
Key = tuple[str, int]
V = TypeVar("V")


class Names:
    """Finds addresses for hosts. Clients that ask for a name at once share its look-up.

    ``now_ns`` is a clock that does not go back.
    """

    def __init__(self, reactor: Any, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._reactor = reactor
        self._now_ns = now_ns
        self._fixed: dict[Key, Sequence[Target]] = {}
        self._kept: dict[Key, tuple[int, Sequence[Target]]] = {}
        self._asking: dict[Key, _Look] = {}

    def find(self, host: str, port: int, found: Found) -> None:
        """Call ``found`` with the addresses of ``host``, at once or later; with none of them when it has none."""
        key = host, port
        targets = self._fixed.get(key)
        if targets is not None:
            found(targets)
            return
        target = target_of(host, port)
        if target is not None:
            _put(self._fixed, key, (target,))
            found((target,))
        else:
            self._find_name(key, found)

    def _find_name(self, key: Key, found: Found) -> None:
        since_ns, targets = self._kept.get(key, (0, ()))
        age_ns = self._now_ns() - since_ns
        if targets and age_ns < OLD_NS:
            if age_ns >= KEPT_NS:
                self._look(key, None)
            found(targets)
        else:
            self._look(key, found)

    def _look(self, key: Key, found: Found | None) -> None:
        look = self._asking.get(key)
        if look is not None:
            look.wanted += [found] if found is not None else []
            return
        look = self._asking[key] = _Look(key[1], lambda targets: self._keep(key, targets))
        look.wanted += [found] if found is not None else []
        self._reactor.nameResolver.resolveHostName(look, *key)

    def _keep(self, key: Key, targets: Sequence[Target]) -> Sequence[Target]:
        """What counts, now that ``targets`` were found."""
        del self._asking[key]
        targets = targets or self._kept.get(key, (0, ()))[1]
        if targets:
            _put(self._kept, key, (self._now_ns(), targets))
        return targets


def _put(kept: dict[Key, V], key: Key, value: V) -> None:
    """Remember, and forget what was remembered first when there is too much."""
    kept[key] = value
    if len(kept) > _MOST:
        del kept[next(iter(kept))]


@implementer(IResolutionReceiver)
class _Look:
    """One look-up, and who waits for it."""

    def __init__(self, port: int, done: Callable[[Sequence[Target]], Sequence[Target]]) -> None:
        self.wanted: list[Found] = []
        self._port = port
        self._done = done
        self._targets: list[Target] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802 - IResolutionReceiver
        """It is under way."""

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802 - IResolutionReceiver
        """One of the addresses."""
        if isinstance(address, IPv4Address):
            self._targets.append((socket.AF_INET, (address.host, self._port)))
        elif isinstance(address, IPv6Address):
            target = target_of(address.host, self._port)
            if target is not None:
                self._targets.append(target)

    def resolutionComplete(self) -> None:  # noqa: N802 - IResolutionReceiver
        """All have come."""
        targets = self._done(self._targets)
        for found in self.wanted:
            found(targets)
