"""What lasts too long. Each vigil has one limit; who is watched stands in the order in which he is due to be looked at.

So a sweep looks at those in front only, and beginning or ending a vigil is one change of a dictionary: nothing like a
timer of the reactor for each connection, of which most would never fire.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Watched(Protocol):
    """Something that is busy or silent."""

    touched_ns: int
    """When it last was busy."""

    def expire(self) -> None:
        """It was silent for too long. Ends the vigil, itself."""


W = TypeVar("W", bound=Watched)
_LOOKS = 4


class Vigil(Generic[W]):
    """Expires what is silent for ``limit_ns``, at most a quarter too late (and the pause between sweeps)."""

    def __init__(self, limit_ns: int) -> None:
        self._limit_ns = limit_ns
        self._look_ns = max(1, limit_ns // _LOOKS)
        self._looked: dict[W, int] = {}

    def __len__(self) -> int:
        return len(self._looked)

    def __iter__(self) -> Iterator[W]:
        return iter(self._looked)

    def __contains__(self, watched: object) -> bool:
        return watched in self._looked

    def begin(self, watched: W, now_ns: int) -> None:
        """Watch from now on."""
        self._looked[watched] = now_ns

    def end(self, watched: W) -> None:
        """Watch no more; nothing if it was not watched."""
        self._looked.pop(watched, None)

    def sweep(self, now_ns: int) -> None:
        """Expire what is due."""
        due = []
        for watched, looked_ns in self._looked.items():
            if now_ns - looked_ns < self._look_ns:
                break
            due.append(watched)
        for watched in due:
            if watched in self._looked:  # what expired before it may have ended it
                del self._looked[watched]
                self._looked[watched] = now_ns
                if now_ns - watched.touched_ns >= self._limit_ns:
                    watched.expire()
