"""The addresses that the farm's name has: those of the nodes that take new clients, the next one first each time."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from farmsyncd.lb.config import NodeAddress

Find = Callable[[str, int, Callable[[Sequence[tuple[int, object]]], None]], None]
"""Looks a name up, at once or later; see :meth:`farmsyncd.lb.relaying.names.Names.find`."""


class Addresses:
    """Called with 4 or 6, gives the addresses of that family, and None when no node has any, of either.

    ``eligible`` gives the nodes. One whose address is a name is looked up with ``find``, again and again; its former
    addresses count until there are new ones. One on a Unix socket has none that a client elsewhere could use.
    """

    def __init__(self, eligible: Callable[[], Sequence[NodeAddress]], find: Find) -> None:
        self._eligible = eligible
        self._find = find
        self._known: dict[str, tuple[str, ...]] = {}
        self._turns = {4: 0, 6: 0}

    def __call__(self, version: int) -> Sequence[str] | None:
        """The addresses of one family, in this turn's order."""
        nodes = [node for node in self._eligible() if not node.path]
        found = list(dict.fromkeys(address for node in nodes for address in self._of(node)))
        self._known = {node.host: self._known[node.host] for node in nodes if node.host in self._known}
        if not found:
            return None
        wanted = [address for address in found if (6 if ":" in address else 4) == version]
        turn = self._turns[version] = (self._turns[version] + 1) % max(1, len(wanted))
        return wanted[turn:] + wanted[:turn]

    def _of(self, node: NodeAddress) -> Sequence[str]:
        try:
            return (str(ipaddress.ip_address(node.host)),)
        except ValueError:
            self._find(node.host, node.port, lambda targets: self._found(node.host, targets))
            return self._known.get(node.host, ())

    def _found(self, host: str, targets: Sequence[tuple[int, object]]) -> None:
        texts = [str(address[0]) for _, address in targets if isinstance(address, tuple)]
        if texts:
            self._known[host] = tuple(text for text in texts if "%" not in text)
