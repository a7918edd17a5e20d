"""A request that the data server turns down, with the code that travels in NO."""

from __future__ import annotations

from farmsyncd.core.messages.greeting import REFUSALS
from farmsyncd.errors import FarmsyncError


class Refused(FarmsyncError):
    """The request cannot be carried out; ``code`` is one of the protocol's REFUSALS, the text is for people."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        assert code in REFUSALS, code
        self.code = code
