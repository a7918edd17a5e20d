"""What a link is told when it is made: its limits and patience, and whom it talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.wire import Limits
from farmsyncd.edges.link.pulse import Pulse

if TYPE_CHECKING:
    from farmsyncd.edges.link.connection import Link

STRANGER = Limits(line=4096, netstring=4096, count=1, total=4096)


@attrs.frozen
class LinkSettings:
    """Limits of one connection. Durations are in seconds and approximate, sizes in bytes.

    ``greeting_timeout``: for a peer to greet. ``idle_timeout``: for one that asks without greeting (a person with
    netcat) between two questions. ``heartbeat``: a client asks a server that said nothing for so long, a server asks
    after two of them; ``silent_beats`` of them in a row without a byte, and the peer is dropped. ``unsent``: a peer for
    which more than this waits, and that takes nothing for ``stalled_beats`` heartbeats, is dropped; so is one for which
    anything at all waits for ``stuck_beats``, and at once one for which more than ``unsent_most`` waits.
    ``unsent_reading``: above this the server reads nothing more from a peer that does not take its answers.
    ``patience``: for a peer to take the rest and to close, once this side has said that it closes. ``read_size``: how
    much is read from the socket at once at most; more is better for bulk, and many small messages make it less.
    ``limits`` hold for a peer that has greeted, ``stranger`` before that.
    """

    greeting_timeout: float = 10.0
    idle_timeout: float = 60.0
    heartbeat: float = 5.0
    silent_beats: int = 3
    stalled_beats: int = 3
    stuck_beats: int = 24
    unsent: int = 16 * 1024 * 1024
    unsent_most: int = 128 * 1024 * 1024
    unsent_reading: int = 1024 * 1024
    patience: float = 5.0
    read_size: int = 64 * 1024
    limits: Limits = attrs.Factory(Limits)
    stranger: Limits = STRANGER

    def pulse(self, ask_beats: int) -> Pulse:
        """A pulse with these limits, which asks after so many quiet heartbeats."""
        return Pulse(self.silent_beats, self.stalled_beats, self.stuck_beats, self.unsent, ask_beats)


class Session(Protocol):
    """Whoever talks over a link.

    A session may also have ``stamp``, a callable that reads a clock in nanoseconds: the link then reads it first
    thing whenever bytes arrive, and keeps it as ``link.arrived_ns`` while the messages in them are received.
    """

    def greeted(self, link: Link, hello: Hello, /) -> None:
        """The peer has said who it is; what it may do is checked here. PeerError closes the link."""

    def received(self, link: Link, message: Message, /) -> None:
        """A message came; ``link.peer`` is None when its sender has not greeted. PeerError closes the link."""

    def lost(self, link: Link, reason: str, /) -> None:
        """The connection is gone: called exactly once, and last."""
