"""Whether a connection is read from, and how much at once."""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp

from farmsyncd.edges.link.portion import Portion


class Valve:
    """Stops reading while there is at least one reason to, so that a fast peer fills its own memory and not ours."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._transport: Any = None
        self._portion: Portion | None = None

    @property
    def is_open(self) -> bool:
        """Whether the peer is listened to."""
        return not self._reasons

    def attach(self, transport: Any, most: int) -> None:
        """Begin to act on ``transport``, which reads; ``most`` bytes at once, at most."""
        self._transport = transport
        if isinstance(transport, tcp.Connection):
            self._portion = Portion(most)
            transport.bufferSize = self._portion.size
        if self._reasons:
            transport.pauseProducing()

    def took(self, amount: int, messages: int) -> None:
        """So many bytes were read at once, and so many messages came of it."""
        if self._portion is not None and self._transport is not None:
            self._portion.took(amount, messages)
            self._transport.bufferSize = self._portion.size

    def detach(self) -> None:
        """Read from now on, until the transport ends; nothing stops it any more."""
        transport, self._transport = self._transport, None
        if self._reasons and transport is not None:
            transport.resumeProducing()
        self._reasons.clear()

    def shut(self, reason: str) -> None:
        """Stop reading, for one reason."""
        if self._transport is not None and not self._reasons:
            self._transport.pauseProducing()
        self._reasons.add(reason)

    def open(self, reason: str) -> None:
        """That reason is gone; read when no other is left."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if self._transport is not None and not self._reasons:
                self._transport.resumeProducing()
