"""The bytes of versions, on their way to a node's staging cache or from a publisher to the data server.

Chunks are asked for by their numbers in a manifest's list of distinct chunks, as ranges: ``0-99,105``.
Where every other file has changed those are long, so that they travel as a netstring.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from farmsyncd.core import words
from farmsyncd.core.messages.base import BOTH, CLIENT, SERVER, Message, Side, netstring, netstrings, word

CODECS = ("raw", "zstd")


@attrs.frozen
class GetManifest(Message):
    """``MANIFEST version`` - answered by MANIFEST-IS."""

    VERB: ClassVar[str] = "MANIFEST"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    version: str = word(words.VERSION)


@attrs.frozen
class ManifestIs(Message):
    """``MANIFEST-IS version <piece> ...`` - the version's encoded manifest, in pieces below the frame's limits."""

    VERB: ClassVar[str] = "MANIFEST-IS"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    version: str = word(words.VERSION)
    pieces: tuple[bytes, ...] = netstrings()


@attrs.frozen
class GetChunks(Message):
    """``CHUNKS version <ranges>`` - send these chunks of a version: CHUNK for each, in any order, then SENT."""

    VERB: ClassVar[str] = "CHUNKS"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    version: str = word(words.VERSION)
    ranges: bytes = netstring()


@attrs.frozen
class Chunk(Message):
    """``CHUNK digest codec length <data>`` - one chunk: ``length`` bytes once unpacked, BLAKE3 ``digest`` of those."""

    VERB: ClassVar[str] = "CHUNK"
    SENT_BY: ClassVar[frozenset[Side]] = BOTH

    digest: bytes = word(words.DIGEST)
    codec: str = word(words.choice(*CODECS))
    length: int = word(words.INTEGER)
    data: bytes = netstring()


@attrs.frozen
class Sent(Message):
    """``SENT version`` - all that was asked for of this version has been sent."""

    VERB: ClassVar[str] = "SENT"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    version: str = word(words.VERSION)


@attrs.frozen
class GetDelta(Message):
    """``STEP from to`` - send the difference that leads from one version to another: DELTA for each part, then SENT.

    Refused with ``gone`` when there is none: then chunks lead there.
    """

    VERB: ClassVar[str] = "STEP"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    old: str = word(words.VERSION)
    new: str = word(words.VERSION)


@attrs.frozen
class Delta(Message):
    """``DELTA new index count <part>`` - part ``index`` (from 0) of the ``count`` parts of a difference."""

    VERB: ClassVar[str] = "DELTA"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    new: str = word(words.VERSION)
    index: int = word(words.INTEGER)
    count: int = word(words.INTEGER)
    part: bytes = netstring()


@attrs.frozen
class Offer(Message):
    """``OFFER version <piece> ...`` - an operator's manifest. Answered by LACK; nothing is kept before PUBLISH."""

    VERB: ClassVar[str] = "OFFER"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    version: str = word(words.VERSION)
    pieces: tuple[bytes, ...] = netstrings()


@attrs.frozen
class Lack(Message):
    """``LACK version <ranges>`` - the chunks of an offered version that are not here yet; empty when all are."""

    VERB: ClassVar[str] = "LACK"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    version: str = word(words.VERSION)
    ranges: bytes = netstring()


CONTENT: tuple[type[Message], ...] = (
    GetManifest, ManifestIs, GetChunks, Chunk, Sent, GetDelta, Delta, Offer, Lack,
)  # fmt: skip
