"""Bulk is spliced: from the socket into a pipe, from the pipe into the other socket; the bytes stay in the kernel.

A splice that would block says so for two reasons, an empty socket and a full pipe. Here it can only be the socket,
because nothing is read while the pipe holds anything. A splice of nothing may be the end or an urgent mark, so the end
is told by copying alone. The size written is always exact: then the kernel holds no last piece back for more to come.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from farmsyncd.lb.relaying.pipes import Pipe

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.leg import Leg

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_MOST = 1 << 20
_TURNS = 4
_SMALL = 1 << 12


def begin(leg: Leg, other: Leg) -> None:
    """Splice from now on, if there is more. Raises OSError."""
    os.set_blocking(leg.fd, False)
    os.set_blocking(other.fd, False)
    leg.bulky = True
    carry(leg, other)


def carry(leg: Leg, other: Leg) -> None:
    """Splice what has come, until there is no more or the other side takes no more. Raises OSError."""
    common = leg.relay.common
    pipe = None if leg.urgent else common.pipes.take()
    if pipe is None:
        _copy_again(leg, other)
        return
    leg.pipe = pipe
    for _ in range(_TURNS):
        try:
            size = os.splice(leg.fd, pipe.writing, _MOST, flags=_FLAGS)
        except BlockingIOError:
            leg.ready = False
            break
        if not size:
            _give_back(leg, pipe)
            _copy_again(leg, other)
            return
        leg.held = size
        if not drain(leg, other):
            return
        leg.pipe = pipe
        if size < _SMALL:
            leg.bulky = False
            leg.large = 0
    else:
        common.events.soon(leg.pump)
    _give_back(leg, pipe)


def drain(leg: Leg, other: Leg) -> bool:
    """Write what the pipe holds; whether all of it was taken. Raises OSError."""
    pipe = leg.pipe
    assert pipe is not None
    relay = leg.relay
    relay.touched_ns = relay.common.events.now_ns
    held = leg.held
    try:
        while held:
            held -= os.splice(pipe.reading, other.fd, held, flags=_FLAGS)
    except BlockingIOError:
        leg.held = held
        leg.stick(other)
        return False
    leg.held = 0
    if leg.stuck:
        leg.stuck = False
        _give_back(leg, pipe)
    return True


def _give_back(leg: Leg, pipe: Pipe) -> None:
    leg.pipe = None
    leg.relay.common.pipes.give_back(pipe)


def _copy_again(leg: Leg, other: Leg) -> None:
    leg.bulky = False
    leg.large = 0
    leg.copy(other)
