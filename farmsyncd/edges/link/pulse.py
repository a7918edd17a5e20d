"""Whether the peer lives, judged at each heartbeat.

Heartbeats are counted, never measured: the reactor's timers follow the wall clock, which may jump, and a process that
was stopped for a while must not drop all its peers the moment it goes on.
"""

from __future__ import annotations

import enum

import attrs


class Beat(enum.Enum):
    """What to do at a heartbeat."""

    NOTHING = "nothing"
    ASK = "ask"
    SILENT = "silent"
    STALLED = "stalled"


@attrs.define
class Pulse:
    """Counts the heartbeats in a row in which a peer sent nothing, or took nothing of what waits for it.

    The counts are LinkSettings' ``silent_beats``, ``stalled_beats`` and ``stuck_beats``, and ``unsent`` in bytes.
    ``ask_beats`` is how many quiet ones in a row make this side ask: where the two sides differ, one of them does
    nearly all the asking, and half as many questions suffice.
    """

    silent_beats: int
    stalled_beats: int
    stuck_beats: int
    unsent: int
    ask_beats: int = 1
    _heard: bool = attrs.field(default=False, init=False)
    _said: bool = attrs.field(default=False, init=False)
    _moved: bool = attrs.field(default=False, init=False)
    _quiet: int = attrs.field(default=0, init=False)
    _silent: int = attrs.field(default=0, init=False)
    _unmoved: int = attrs.field(default=0, init=False)

    def heard(self) -> None:
        """Bytes came from the peer."""
        self._heard = True

    def said(self) -> None:
        """Something was given to the peer."""
        self._said = True

    def moved(self) -> None:
        """The peer took bytes."""
        self._moved = True

    def beat(self, waiting: int, *, listening: bool) -> Beat:
        """One heartbeat has passed; ``waiting`` bytes are unsent, and we were or were not ``listening``.

        A side that does not listen cannot call its peer silent, but it lets the peer know that it is there; so does one
        that listens to a long answer and says nothing.
        """
        self._unmoved = 0 if self._moved or not waiting else self._unmoved + 1
        self._silent = 0 if self._heard or not listening else self._silent + 1
        self._quiet = 0 if self._heard and self._said else self._quiet + 1
        self._heard = self._said = self._moved = False
        if self._unmoved >= (self.stalled_beats if waiting > self.unsent else self.stuck_beats):
            return Beat.STALLED
        if self._silent >= self.silent_beats:
            return Beat.SILENT
        return Beat.ASK if self._quiet >= self.ask_beats else Beat.NOTHING
