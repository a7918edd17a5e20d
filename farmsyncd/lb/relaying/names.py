"""Where nodes are whose address is a name: looked up, in a thread of the reactor's, and kept for a few seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from farmsyncd.lb.relaying.sockets import Target, target_of

KEPT_NS = 5_000_000_000
Found = Callable[[Sequence[Target]], None]
Key = tuple[str, int]


class Names:
    """Finds addresses for hosts. Clients that ask for a name at once share its look-up."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
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
            self._fixed[key] = (target,)
            found((target,))
        else:
            self._find_name(key, found)

    def _find_name(self, key: Key, found: Found) -> None:
        until_ns, targets = self._kept.get(key, (0, ()))
        if time.monotonic_ns() < until_ns:
            found(targets)
            return
        look = self._asking.get(key)
        if look is None:
            look = self._asking[key] = _Look(key[1], lambda targets: self._keep(key, targets))
            look.wanted.append(found)
            self._reactor.nameResolver.resolveHostName(look, *key)
        else:
            look.wanted.append(found)

    def _keep(self, key: Key, targets: Sequence[Target]) -> None:
        del self._asking[key]
        if targets:
            self._kept[key] = time.monotonic_ns() + KEPT_NS, targets


@implementer(IResolutionReceiver)
class _Look:
    """One look-up, and who waits for it."""

    def __init__(self, port: int, done: Found) -> None:
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
        self._done(self._targets)
        for found in self.wanted:
            found(self._targets)
