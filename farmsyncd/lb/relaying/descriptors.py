"""A few descriptors kept for the moment in which there are no more, so that what has begun can be ended well."""

from __future__ import annotations

import contextlib
import os

_KEPT = 8


class Reserve:
    """Descriptors that are held for nothing, and spent one by one."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self.restore()

    def spend(self) -> bool:
        """Free one descriptor for the caller's next call; False when none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def restore(self) -> bool:
        """Take back what was spent, as far as it is to be had; whether the reserve is whole again."""
        with contextlib.suppress(OSError):
            while len(self._held) < _KEPT:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return len(self._held) == _KEPT

    def close(self) -> None:
        """Hold nothing any more."""
        while self.spend():
            pass
