"""Clock comparison. All times are integer nanoseconds; T1 and T4 are the client's clock, T2 and T3 farm time."""

from __future__ import annotations

from typing import ClassVar

import attrs

from farmsyncd.core import words
from farmsyncd.core.messages.base import CLIENT, SERVER, Message, Side, word


@attrs.frozen
class Time(Message):
    """``TIME`` - what time is it? For people; needs no greeting."""

    VERB: ClassVar[str] = "TIME"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT


@attrs.frozen
class Now(Message):
    """``NOW farm_ns epoch utc`` - the answer to TIME: farm time, this start's epoch, and the same time to read."""

    VERB: ClassVar[str] = "NOW"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    farm_ns: int = word(words.INTEGER)
    epoch: str = word(words.EPOCH)
    utc: str = word(words.TEXT)


@attrs.frozen
class Probe(Message):
    """``PROBE t1`` - sent at t1 by the client's clock."""

    VERB: ClassVar[str] = "PROBE"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    t1: int = word(words.INTEGER)


@attrs.frozen
class Echo(Message):
    """``ECHO t1 t2 t3 epoch`` - the probe of t1 came at t2 and this left at t3, in the farm time of this epoch."""

    VERB: ClassVar[str] = "ECHO"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    t1: int = word(words.INTEGER)
    t2: int = word(words.INTEGER)
    t3: int = word(words.INTEGER)
    epoch: str = word(words.EPOCH)


CLOCK: tuple[type[Message], ...] = (Time, Now, Probe, Echo)
