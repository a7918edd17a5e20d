"""What may be said before the client's first byte: to the node, and by a balancer in front."""

from __future__ import annotations

from typing import Protocol

import attrs

from farmsyncd.core.proxyheader import Fault
from farmsyncd.lb.relaying.sockets import Address

LONGEST = 4096
"""A balancer's header may be so long, in bytes; one that is longer is none."""


@attrs.frozen
class Accepted:
    """A header was read: who the client is and what it connected to (None: as the socket says), and what follows."""

    client: Address | None
    server: Address | None
    rest: bytes


class Prologue(Protocol):
    """Codes and decodes such headers."""

    expects: bool
    """Whether each connection begins with a header."""

    def read(self, buffer: bytes, peer: Address) -> Accepted | None:
        """The header at the start of ``buffer``, which came from ``peer``; None when more is needed.

        Raises HeaderError when it is none, or when ``peer`` may not send one.
        """

    def refused(self, peer: Address, fault: Fault, why: str) -> None:
        """A connection is reset because of what it began with; ``why`` is for people."""

    def header(self, client: Address, server: Address, node: str) -> bytes:
        """What ``node`` is told first of a connection that ``client`` made to ``server``; may be nothing."""
