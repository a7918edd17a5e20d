"""What an operator asks for, and the answers.

``when`` is ``now``, ``in:NANOSECONDS`` from the server's now, or ``at:NANOSECONDS`` of UTC since the Unix epoch,
which the data server turns into farm time once.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

import attrs

from farmsyncd.core import words
from farmsyncd.core.messages.base import CLIENT, SERVER, Message, Side, netstrings, word

_VERSION = words.optional(words.VERSION)
_INTEGER = words.optional(words.INTEGER)
_PIECE: Final = 4 * 1024 * 1024


@attrs.frozen
class Publish(Message):
    """``PUBLISH dataset version when`` - make an offered, complete version the dataset's next cycle."""

    VERB: ClassVar[str] = "PUBLISH"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    version: str = word(words.VERSION)
    when: str = word(words.TEXT)


@attrs.frozen
class Accepted(Message):
    """``ACCEPTED dataset cycle version activates_at utc_ns replaced`` - the new cycle, durable.

    ``activates_at`` is farm time, ``utc_ns`` the same by the server's wall clock; ``replaced`` is the version that was
    pending until now, or ``-``.
    """

    VERB: ClassVar[str] = "ACCEPTED"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    dataset: str = word(words.NAME)
    cycle: int = word(words.INTEGER)
    version: str = word(words.VERSION)
    activates_at: int = word(words.INTEGER)
    utc_ns: int = word(words.INTEGER)
    replaced: str | None = word(_VERSION)


@attrs.frozen
class Forecast(Message):
    """``FORECAST dataset version when`` - what would PUBLISH of an offered version do? ANSWER with JSON."""

    VERB: ClassVar[str] = "FORECAST"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    version: str = word(words.VERSION)
    when: str = word(words.TEXT)


@attrs.frozen
class Rollback(Message):
    """``ROLLBACK dataset version when`` - a cycle that leads back to an earlier version; ``-`` is the one before."""

    VERB: ClassVar[str] = "ROLLBACK"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    version: str | None = word(_VERSION)
    when: str = word(words.TEXT)


@attrs.frozen
class Cancel(Message):
    """``CANCEL dataset`` - drop the pending cycle, before its freeze point. Answered by CANCELLED."""

    VERB: ClassVar[str] = "CANCEL"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)


@attrs.frozen
class Cancelled(Message):
    """``CANCELLED dataset cycle version`` - what will not happen."""

    VERB: ClassVar[str] = "CANCELLED"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    dataset: str = word(words.NAME)
    cycle: int = word(words.INTEGER)
    version: str = word(words.VERSION)


@attrs.frozen
class Pin(Message):
    """``PIN node dataset version`` - the node keeps this version. Answered by DONE."""

    VERB: ClassVar[str] = "PIN"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    node: str = word(words.NAME)
    dataset: str = word(words.NAME)
    version: str = word(words.VERSION)


@attrs.frozen
class Unpin(Message):
    """``UNPIN node dataset`` - all pins of the node in this dataset go. Answered by DONE."""

    VERB: ClassVar[str] = "UNPIN"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    node: str = word(words.NAME)
    dataset: str = word(words.NAME)


@attrs.frozen
class Done(Message):
    """``DONE verb`` - the request of that verb has been carried out, durably."""

    VERB: ClassVar[str] = "DONE"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    verb: str = word(words.TEXT)


@attrs.frozen
class Status(Message):
    """``STATUS`` - the farm as the data server sees it. ANSWER with the JSON of ``farmsync status --json``."""

    VERB: ClassVar[str] = "STATUS"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT


@attrs.frozen
class History(Message):
    """``HISTORY dataset`` - its cycles, newest first. ANSWER with JSON."""

    VERB: ClassVar[str] = "HISTORY"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)


@attrs.frozen
class Report(Message):
    """``REPORT dataset cycle`` - the flip report of a cycle, ``-`` for the newest. ANSWER with the contract's JSON."""

    VERB: ClassVar[str] = "REPORT"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    cycle: int | None = word(_INTEGER)


@attrs.frozen
class Answer(Message):
    """``ANSWER verb <piece> ...`` - the answer to the request of that verb: UTF-8 JSON, in pieces.

    How thousands of nodes stand with many datasets is more than one netstring may hold.
    """

    VERB: ClassVar[str] = "ANSWER"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    verb: str = word(words.TEXT)
    pieces: tuple[bytes, ...] = netstrings()

    @classmethod
    def of(cls, verb: str, json: bytes) -> Self:
        """The answer ``json``, cut into pieces below the frame's limits."""
        return cls(verb, tuple(json[at : at + _PIECE] for at in range(0, len(json), _PIECE)) or (b"",))

    @property
    def json(self) -> bytes:
        """The whole answer."""
        return b"".join(self.pieces)


OPERATING: tuple[type[Message], ...] = (
    Publish, Accepted, Forecast, Rollback, Cancel, Cancelled, Pin, Unpin, Done, Status, History, Report, Answer,
)  # fmt: skip
