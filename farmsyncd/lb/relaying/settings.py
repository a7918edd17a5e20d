"""The limits and sizes of relaying."""

from __future__ import annotations

import attrs

SECOND_NS = 1_000_000_000


@attrs.frozen
class RelaySettings:
    """Times are in nanoseconds, sizes in bytes."""

    connect_ns: int = 2 * SECOND_NS
    """For a node to take a connection, before another one is tried."""
    greeting_ns: int = 5 * SECOND_NS
    """For a balancer in front to say who the client is."""
    idle_ns: int = 3600 * SECOND_NS
    """Silence on a connection, after which it is reset."""
    half_closed_ns: int = 300 * SECOND_NS
    """The same once one side has ended its half."""
    accepts: int = 64
    """Connections that are accepted in one go, before others get their turn."""
    piece: int = 1 << 16
    """What is read at once when copying, and so the most that waits in memory for each direction."""
    pipes: int = 256
    """Pipes for splicing, at most; a direction that finds none copies."""
    large_pipes: int = 48
    """So many of them are made to hold ``pipe_size``, the others what pipes hold (64 KiB). Together they stay within
    what the kernel grants an unprivileged user, 64 MiB."""
    pipe_size: int = 1 << 20
