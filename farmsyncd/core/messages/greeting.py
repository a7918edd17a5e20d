"""Who is there, and whether it still is: said first, and again as long as the connection lives."""

from __future__ import annotations

from typing import ClassVar

import attrs

from farmsyncd.core import words
from farmsyncd.core.messages.base import BOTH, SERVER, Message, Side, netstring, rest, word

PROTOCOL = 1
ROLES = ("node", "stager", "probe", "operator", "data")


@attrs.frozen
class Hello(Message):
    """``HELLO protocol role name key=value ...`` - each side's first message: what it is and can do.

    Clients greet first. ``role`` says what the connection is for: ``node`` (follows schedules), ``stager`` (a node's
    bulk connection), ``probe`` (a node's clock comparison), ``operator`` (the command); the server is ``data``.
    """

    VERB: ClassVar[str] = "HELLO"
    SENT_BY: ClassVar[frozenset[Side]] = BOTH

    protocol: int = word(words.INTEGER)
    role: str = word(words.choice(*ROLES))
    name: str = word(words.NAME)
    features: tuple[str, ...] = rest(words.TEXT)

    def feature(self, key: str) -> str | None:
        """The value of ``key=value`` among the features, or None."""
        for pair in self.features:
            found, equals, value = pair.partition("=")
            if found == key and equals:
                return value
        return None


@attrs.frozen
class Ping(Message):
    """``PING token`` - are you there?"""

    VERB: ClassVar[str] = "PING"
    SENT_BY: ClassVar[frozenset[Side]] = BOTH

    token: int = word(words.INTEGER)


@attrs.frozen
class Pong(Message):
    """``PONG token`` - I am: the answer to PING, with its token."""

    VERB: ClassVar[str] = "PONG"
    SENT_BY: ClassVar[frozenset[Side]] = BOTH

    token: int = word(words.INTEGER)


@attrs.frozen
class Bye(Message):
    """``BYE <reason>`` - the last message before this side closes, with the reason for people to read."""

    VERB: ClassVar[str] = "BYE"
    SENT_BY: ClassVar[frozenset[Side]] = BOTH

    reason: bytes = netstring()


REFUSALS = ("bad", "unknown", "refused", "frozen", "full", "busy", "gone", "forbidden", "internal")


@attrs.frozen
class No(Message):
    """``NO code verb <why>`` - a request is refused; the connection goes on.

    Codes: ``bad`` (the request makes no sense), ``unknown`` (no such dataset, version, node or cycle), ``refused``
    (a rule forbids it), ``frozen`` (after the freeze point), ``full`` (no space), ``busy`` (try again), ``gone``
    (it was there once), ``forbidden`` (not for this peer), ``internal`` (a fault here; the log has it).
    """

    VERB: ClassVar[str] = "NO"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    code: str = word(words.choice(*REFUSALS))
    verb: str = word(words.TEXT)
    why: bytes = netstring()


GREETING: tuple[type[Message], ...] = (Hello, Ping, Pong, Bye, No)
