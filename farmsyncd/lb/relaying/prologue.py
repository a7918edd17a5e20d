"""What may be said before the client's first byte: to the node, and by a balancer in front."""

from __future__ import annotations

from typing import Protocol

import attrs

from farmsyncd.lb.relaying.sockets import Address

LONGEST = 4096
"""A balancer's header may be so long, in bytes; one that is longer is none."""


@attrs.frozen
class Accepted:
    """A header was read: who the client is (None: whoever is connected), and what came after the header."""

    client: Address | None
    rest: bytes


class Prologue(Protocol):
    """Codes and decodes such headers."""

    expects: bool
    """Whether each connection begins with a header."""

    def read(self, buffer: bytes) -> Accepted | None:
        """The header at the start of ``buffer``; None when more is needed. Raises PeerError when it is none."""

    def header(self, client: Address, server: Address) -> bytes:
        """What the node is told first of a connection that ``client`` made to ``server``; may be nothing."""
