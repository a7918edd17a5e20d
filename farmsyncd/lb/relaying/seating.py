"""How relays ask for a node: what they need from whoever chooses."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol


class Request(Protocol):
    """A question for a node that may be waiting for its answer."""

    def cancel(self) -> None:
        """The client is gone: no answer is wanted."""


class Dispatcher(Protocol):
    """Chooses nodes. A seat has a ``node`` with an ``address``: name, host, port, path; a path is a Unix socket's."""

    def request(
        self, source: bytes, decided: Callable[[Any | None], None], tried: Collection[str] = ()
    ) -> Request | None:
        """Ask for a node for ``source``, none of those ``tried``; ``decided`` is called at once or later, once.

        With None when no node is to be had.
        """

    def connected(self, seat: Any) -> None:
        """The node has taken the connection."""

    def refused(self, seat: Any, reason: str) -> None:
        """The node has not; the seat is given up by that."""

    def leave(self, seat: Any, *, barren: bool = False) -> None:
        """The connection has ended. ``barren``: the node has reset it before it had sent a single byte."""
