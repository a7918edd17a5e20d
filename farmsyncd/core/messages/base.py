"""What all messages share: fields that are spelled as words or carried as netstrings, and who may send them.

A message class lists its fields in the order of its words; netstrings come last. Everything that a message needs to
travel is read off its fields here, so that a verb is described in one place only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import attrs

from farmsyncd.core import words
from farmsyncd.core.wire import Frame
from farmsyncd.errors import PeerError


class Side(enum.Enum):
    """Who speaks: the client opened the connection, the data server accepted it."""

    CLIENT = "client"
    SERVER = "server"


class MessageError(PeerError):
    """A frame that is well formed and is no message, or no message that this side may send."""


CLIENT = frozenset({Side.CLIENT})
SERVER = frozenset({Side.SERVER})
BOTH = CLIENT | SERVER


def word(kind: words.Kind, **more: Any) -> Any:
    """A field that travels as one word."""
    return attrs.field(metadata={"kind": kind}, **more)


def rest(kind: words.Kind) -> Any:
    """A field, the last of the words, that takes all further ones: a tuple of values."""
    return attrs.field(factory=tuple, converter=tuple, metadata={"rest": kind})


def netstring() -> Any:
    """A field that travels as one netstring: bytes."""
    return attrs.field(metadata={"netstring": True})


def netstrings() -> Any:
    """The last field: all further netstrings, at least one; a tuple of bytes."""
    return attrs.field(converter=tuple, metadata={"netstrings": True})


@attrs.frozen
class Message:
    """Base of all messages. ``VERB`` is the first word on the wire, ``SENT_BY`` the sides that may send it."""

    VERB: ClassVar[str]
    SENT_BY: ClassVar[frozenset[Side]]

    def frame(self) -> Frame:
        """The message as it travels. Raises ValueError when a field's value has no spelling."""
        spelled: list[str] = []
        payload: list[bytes] = []
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if "kind" in field.metadata:
                spelled.append(field.metadata["kind"].encode(value))
            elif "rest" in field.metadata:
                spelled.extend(field.metadata["rest"].encode(one) for one in value)
            elif "netstring" in field.metadata:
                payload.append(value)
            else:
                payload.extend(value)
        return Frame(self.VERB, tuple(spelled), tuple(payload))

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Read a frame of this verb. Raises MessageError saying what was expected and what came."""
        spelled, payload = list(frame.words), list(frame.payload)
        values: list[Any] = []
        for field in attrs.fields(cls):
            try:
                values.append(_take(field, spelled, payload))
            except IndexError:
                raise MessageError(f"expected {cls.usage()}, and {field.name} is missing") from None
            except ValueError as error:
                raise MessageError(f"expected {cls.usage()}: {field.name}: {error}") from None
        if spelled or payload:
            raise MessageError(f"expected {cls.usage()}, and more came: {(spelled or payload)[0][:40]!r}")
        return cls(*values)

    @classmethod
    def usage(cls) -> str:
        """How a message of this verb looks, for errors: ``SCHEDULE dataset``."""
        return " ".join([cls.VERB, *(_placeholder(field) for field in attrs.fields(cls))])


def _take(field: attrs.Attribute[Any], spelled: list[str], payload: list[bytes]) -> Any:
    if "kind" in field.metadata:
        return field.metadata["kind"].decode(spelled.pop(0))
    if "rest" in field.metadata:
        taken = tuple(field.metadata["rest"].decode(one) for one in spelled)
        spelled.clear()
        return taken
    if "netstring" in field.metadata:
        return payload.pop(0)
    if not payload:
        raise IndexError
    taken = tuple(payload)
    payload.clear()
    return taken


def _placeholder(field: attrs.Attribute[Any]) -> str:
    name = field.name.rstrip("_")
    if "kind" in field.metadata:
        return name
    return f"[{name} ...]" if "rest" in field.metadata else f"<{name}>"


def table(*groups: Iterable[type[Message]]) -> dict[str, type[Message]]:
    """Verb to class, over all groups; a verb that is taken twice is a programming error."""
    verbs: dict[str, type[Message]] = {}
    for group in groups:
        for message in group:
            assert message.VERB not in verbs, message.VERB
            verbs[message.VERB] = message
    return verbs
