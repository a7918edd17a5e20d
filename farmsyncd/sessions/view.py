"""A row's state under a request's hands: what it reads is decoded key by key, what it changes is found by comparing.

The state stays bytes until a key is looked at. What the request changed is asked for at commit: keys that were set or
deleted, and those values that can change inside and were looked at; they are encoded again and compared with what they
were made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from farmsyncd.core.session.encoding import Encoded, check_key, decode_value, encode_value, split
from farmsyncd.core.session.faults import SessionConflict

# What was decoded as one of these is the same at commit. (A tuple may hold a list.)
_UNCHANGING = frozenset(
    (type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, frozenset)
)
_MISSING: Any = object()

Changes = Mapping[str, Encoded | None]
"""Keys that a request changed, each with its new value; None for a key that it deleted."""


@attrs.frozen
class Codec:
    """How values become bytes, and values again; ``encode`` is given the key as well, for its errors."""

    encode: Callable[[object, str], bytes]
    decode: Callable[[Encoded], Any]


EXACT = Codec(encode_value, decode_value)


class View:
    """``state`` as the row has it, None without a row, and a request's changes over it."""

    __slots__ = ("_codec", "_orphans", "_parts", "_set", "_state", "_values", "_watched")

    def __init__(self, state: bytes | None, codec: Codec = EXACT) -> None:
        self._state = state
        self._codec = codec
        self._parts: Mapping[str, Encoded] | None = None
        self._values: dict[str, Any] = {}
        self._set: dict[str, bytes | None] = {}
        self._watched: set[str] = set()
        self._orphans: Sequence[tuple[str, Any, bytes]] = ()

    def parts(self) -> Mapping[str, Encoded]:
        """The row's state, key by key. Raises DamagedState."""
        parts = self._parts
        if parts is None:
            parts = self._parts = {} if self._state is None else split(self._state)
        return parts

    def read(self, key: str) -> Any:
        """The value of ``key``, the same object each time. Raises KeyError."""
        value = self._values.get(key, _MISSING)
        if value is not _MISSING:
            return value
        raw = (self._parts or self.parts()).get(key)
        if raw is None or key in self._set:
            raise KeyError(key)
        value = self._values[key] = self._codec.decode(raw)
        if type(value) not in _UNCHANGING:
            self._watched.add(key)
        return value

    def write(self, key: str, value: Any) -> None:
        """Set ``key``. Raises NotStorable, at once."""
        check_key(key)
        self._set[key] = self._codec.encode(value, key)
        self._values[key] = value
        if type(value) in _UNCHANGING:
            self._watched.discard(key)
        else:
            self._watched.add(key)

    def delete(self, key: str) -> None:
        """Take ``key`` out. Raises KeyError."""
        if not self.has(key):
            raise KeyError(key)
        self._values.pop(key, None)
        self._watched.discard(key)
        self._set[key] = None

    def has(self, key: object) -> bool:
        """Whether there is such a key."""
        if key in self._set:
            return self._set[key] is not None
        return key in self.parts()

    def keys(self) -> list[str]:
        """Those of the row first, new ones in the order in which they were set."""
        parts, changed = self.parts(), self._set
        if not changed:
            return list(parts)
        kept = [key for key in parts if changed.get(key, b"") is not None]
        return kept + [key for key, raw in changed.items() if raw is not None and key not in parts]

    def changes(self) -> Changes:
        """What the request changed since the row.

        Raises NotStorable for what was put into a value since it was set, and SessionConflict for an object that is no
        longer the session's: see :meth:`committed`.
        """
        if not (self._set or self._watched or self._orphans):
            return {}
        now = dict(self._set)
        for key in list(self._watched):  # another thread may be reading: an event loop's, while this one commits
            now[key] = self._codec.encode(self._values[key], key)
        for key, value, seen in self._orphans:
            if self._codec.encode(value, key) != seen:
                raise SessionConflict(key)
        parts = self.parts()
        return {key: raw for key, raw in now.items() if raw != _bytes(parts.get(key))}

    def committed(self, state: bytes, changes: Changes, merged: bool) -> None:
        """The row is ``state`` now: these changes are in it and, when it was ``merged``, other requests' as well.

        What others changed is read anew. The application may still hold an object made of the old value; if it changes
        that after this, nobody would see the change, so :meth:`changes` calls it a conflict.
        """
        before = self.parts() if merged else {}
        self._state, self._parts = state, None
        self._set.clear()
        if not merged:
            return
        after = self.parts()
        for key in [key for key in list(self._values) if key not in changes]:
            old = _bytes(before.get(key))
            if old == _bytes(after.get(key)):
                continue
            value = self._values.pop(key)
            if key in self._watched:
                self._watched.discard(key)
                if old is not None:
                    self._orphans = [*self._orphans, (key, value, old)]


def _bytes(encoded: Encoded | None) -> bytes | None:
    return None if encoded is None else bytes(encoded)
