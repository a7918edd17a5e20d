"""What is active, what comes next, and how a node stands. All times are farm time in nanoseconds."""

from __future__ import annotations

from typing import ClassVar

import attrs

from farmsyncd.core import words
from farmsyncd.core.messages.base import CLIENT, SERVER, Message, Side, netstring, rest, word

_INTEGER = words.optional(words.INTEGER)
_VERSION = words.optional(words.VERSION)
NODE_STATES = ("empty", "staging", "ready", "staged", "late", "failed")


@attrs.frozen
class Schedule(Message):
    """``SCHEDULE dataset`` - what is the plan? Answered by PLAN; needs no greeting.

    A greeted node that has asked is sent every later change of the plan at once. The first to ask after an
    activation time starts the roll-over.
    """

    VERB: ClassVar[str] = "SCHEDULE"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)


@attrs.frozen
class Plan(Message):
    """``PLAN dataset revision cycle version activated_at next_cycle next_version activates_at freezes_at``

    The active cycle and the next one; ``-`` in all words of one that there is not. ``revision`` grows with every
    change of the dataset's plan, so that an older plan that arrives late is known as such.
    """

    VERB: ClassVar[str] = "PLAN"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    dataset: str = word(words.NAME)
    revision: int = word(words.INTEGER)
    cycle: int | None = word(_INTEGER)
    version: str | None = word(_VERSION)
    activated_at: int | None = word(_INTEGER)
    next_cycle: int | None = word(_INTEGER)
    next_version: str | None = word(_VERSION)
    activates_at: int | None = word(_INTEGER)
    freezes_at: int | None = word(_INTEGER)


@attrs.frozen
class Datasets(Message):
    """``DATASETS`` - which datasets are there? Answered by DATASETS-ARE; a greeted node is told of later ones too."""

    VERB: ClassVar[str] = "DATASETS"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT


@attrs.frozen
class DatasetsAre(Message):
    """``DATASETS-ARE name ...`` - all of them, sorted."""

    VERB: ClassVar[str] = "DATASETS-ARE"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    names: tuple[str, ...] = rest(words.NAME)


@attrs.frozen
class Pins(Message):
    """``PINS dataset version ...`` - the versions of a dataset that this node must keep; replaces the last list."""

    VERB: ClassVar[str] = "PINS"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    dataset: str = word(words.NAME)
    versions: tuple[str, ...] = rest(words.VERSION)


@attrs.frozen
class Standing(Message):
    """``STANDING dataset state cycle version staged_cycle staged_version offset error_bound <detail>``

    How the node stands with one dataset. States: ``empty`` (serves nothing yet), ``staging`` (brings a version in),
    ``ready`` (serves the plan's active version; nothing comes next), ``staged`` (has the next one complete), ``late``
    (should serve a newer version than it does), ``failed`` (cannot stage or follow; ``detail`` says). ``offset`` and
    ``error_bound`` are those of its clock comparison, ``-`` before the first.
    """

    VERB: ClassVar[str] = "STANDING"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    state: str = word(words.choice(*NODE_STATES))
    cycle: int | None = word(_INTEGER)
    version: str | None = word(_VERSION)
    staged_cycle: int | None = word(_INTEGER)
    staged_version: str | None = word(_VERSION)
    offset: int | None = word(_INTEGER)
    error_bound: int | None = word(_INTEGER)
    detail: bytes = netstring()


@attrs.frozen
class Flipped(Message):
    """``FLIPPED dataset cycle version activated_at error_bound <detail>`` - the node's swap of one cycle, once done.

    ``activated_at`` is when it was done in farm time, as the node reckons it, ``error_bound`` its hard bound then.
    ``detail`` names a hook that failed, or is empty. Answered by NOTED; sent again until it is.
    """

    VERB: ClassVar[str] = "FLIPPED"
    SENT_BY: ClassVar[frozenset[Side]] = CLIENT

    dataset: str = word(words.NAME)
    cycle: int = word(words.INTEGER)
    version: str = word(words.VERSION)
    activated_at: int = word(words.INTEGER)
    error_bound: int = word(words.INTEGER)
    detail: bytes = netstring()


@attrs.frozen
class Noted(Message):
    """``NOTED dataset cycle`` - the node's FLIPPED of that cycle is in the catalog."""

    VERB: ClassVar[str] = "NOTED"
    SENT_BY: ClassVar[frozenset[Side]] = SERVER

    dataset: str = word(words.NAME)
    cycle: int = word(words.INTEGER)


SCHEDULE: tuple[type[Message], ...] = (Schedule, Plan, Datasets, DatasetsAre, Pins, Standing, Flipped, Noted)
