"""The protocol's verbs, one frozen class each; the only place that knows them.

==============  ==============================================================
``greeting``    HELLO, PING, PONG, BYE, NO
``clock``       TIME, NOW, PROBE, ECHO
``schedule``    SCHEDULE, PLAN, DATASETS, DATASETS-ARE, PINS, STANDING, FLIPPED, NOTED
``content``     MANIFEST, MANIFEST-IS, CHUNKS, CHUNK, SENT, STEP, DELTA, OFFER, LACK
``operating``   PUBLISH, ACCEPTED, FORECAST, ROLLBACK, CANCEL, CANCELLED, PIN, UNPIN, DONE,
                STATUS, HISTORY, REPORT, ANSWER
==============  ==============================================================
"""

from __future__ import annotations

from farmsyncd.core.messages.base import Message, MessageError, Side, table
from farmsyncd.core.messages.clock import CLOCK
from farmsyncd.core.messages.content import CONTENT
from farmsyncd.core.messages.greeting import GREETING
from farmsyncd.core.messages.operating import OPERATING
from farmsyncd.core.messages.schedule import SCHEDULE
from farmsyncd.core.wire import Frame

VERBS: dict[str, type[Message]] = table(GREETING, CLOCK, SCHEDULE, CONTENT, OPERATING)


def read(frame: Frame, sender: Side) -> Message:
    """The message that ``sender`` sent as ``frame``.

    Raises MessageError for a verb that is not known, that this side may not send, or whose fields are wrong.
    """
    message = VERBS.get(frame.verb)
    if message is None:
        raise MessageError(f"expected a verb of this protocol, and {frame.verb} came")
    if sender not in message.SENT_BY:
        raise MessageError(f"{frame.verb} is not for the {sender.value} to send")
    return message.from_frame(frame)


__all__ = ["VERBS", "Message", "MessageError", "Side", "read"]
