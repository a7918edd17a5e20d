"""How much to read at once: as much as may be, as long as one turn of the reactor is enough for what is in it."""

from __future__ import annotations

from typing import Final

import attrs

MESSAGES: Final = 200
"""More of them in one turn would keep others waiting for some milliseconds: requests, and swaps."""
_FIRST: Final = 64 * 1024
_LEAST: Final = 16 * 1024


@attrs.define
class Portion:
    """The bytes to read at once: ``most`` while messages are large, fewer while they are small."""

    most: int
    size: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = min(self.most, _FIRST)

    def took(self, amount: int, messages: int) -> None:
        """``amount`` bytes came at once, and completed so many messages."""
        if messages > MESSAGES:
            self.size = max(min(self.most, _LEAST), self.size * MESSAGES // messages)
        elif amount >= self.size and 2 * messages <= MESSAGES:
            self.size = min(self.most, 2 * self.size)
