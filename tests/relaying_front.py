"""A front by itself, as a process: its settings and nodes in one JSON argument, its address in one line of its output.

Its dispatcher gives each client the first node that was not tried, so that what it is about is relaying alone.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
from collections.abc import Callable, Collection
from typing import Any

import attrs

from farmsyncd.lb.relaying.binding import bind
from farmsyncd.lb.relaying.front import Front
from farmsyncd.lb.relaying.settings import RelaySettings


@attrs.frozen
class Address:
    """Where a node is, as a relay wants to know it."""

    name: str
    host: str
    port: int
    path: str


@attrs.define(eq=False)
class PlainNode:
    """A node, for a seat."""

    address: Address
    connections: int = 0


@attrs.define(eq=False)
class PlainSeat:
    """A seat, for a relay."""

    node: PlainNode


class NoWait:
    """A request that was answered at once."""

    def cancel(self) -> None:
        """Nothing waits."""


@attrs.define(eq=False)
class PlainDispatcher:
    """Nodes in their order; what became of the seats is counted."""

    nodes: list[PlainNode]
    refusals: list[str] = attrs.Factory(list)
    barren: int = 0

    def request(
        self,
        source: bytes,  # noqa: ARG002 - it is all one
        decided: Callable[[Any | None], None],
        tried: Collection[str] = (),
    ) -> NoWait:
        """The first that was not tried."""
        for node in self.nodes:
            if node.address.name not in tried:
                node.connections += 1
                decided(PlainSeat(node))
                break
        else:
            decided(None)
        return NoWait()

    def connected(self, seat: PlainSeat) -> None:
        """Nothing to remember."""

    def refused(self, seat: PlainSeat, reason: str) -> None:
        """Count it."""
        self.refusals.append(reason)
        self.leave(seat)

    def leave(self, seat: PlainSeat, *, barren: bool = False) -> None:
        """Count it."""
        seat.node.connections -= 1
        self.barren += barren


def node(name: str, host: str, port: int) -> PlainNode:
    """A node at an address, or at a path when ``host`` is one."""
    path = host if host.startswith("/") else ""
    return PlainNode(Address(name, "" if path else host, port, path))


def main() -> None:
    """Run until killed."""
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver

    given = json.loads(sys.argv[1])
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    if "descriptors" in given:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (given["descriptors"], hard))
    dispatcher = PlainDispatcher([node(*one) for one in given["nodes"]])
    listener = bind(given.get("listen", "tcp:0:interface=127.0.0.1"))
    front = Front(listener, dispatcher, reactor, RelaySettings(**given.get("settings", {})))
    reactor.callWhenRunning(front.start)
    name = listener.getsockname()
    reactor.callWhenRunning(
        lambda: print(json.dumps(name if listener.family == socket.AF_UNIX else list(name[:2])), flush=True)
    )
    reactor.run()


if __name__ == "__main__":
    main()
