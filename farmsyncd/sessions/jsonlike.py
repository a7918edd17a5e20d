"""What applications are used to put into Flask's and Django's own sessions, beyond what farmsync keeps exactly.

Those are written as JSON, which takes a value of a subclass for one of its base (a ``defaultdict``, an ``IntEnum``),
and a key that is a number for the text of that number. Who changes one line to use farmsync's sessions finds the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farmsyncd.core.session.encoding import encode_value
from farmsyncd.core.session.faults import NotStorable

_DEEPEST = 100
Dress = Callable[[str], Any]


def encode_as_json_would(value: object, where: str, dress: Dress = str.__str__) -> bytes:
    """As core.session.encoding.encode_value, and what that refuses as JSON would have it.

    ``dress`` makes what is kept of a text that is of a subclass of ``str``.
    """
    try:
        return encode_value(value, where)
    except NotStorable:
        return encode_value(_plain(value, dress, 0), where)


def _plain(value: Any, dress: Dress, depth: int) -> Any:
    if depth > _DEEPEST:
        return value  # encode_value says what is wrong with it
    below = depth + 1
    if isinstance(value, dict):
        return {_key(key): _plain(one, dress, below) for key, one in value.items()}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind([_plain(one, dress, below) for one in value])
    return _plain_atom(value, dress)


def _plain_atom(value: Any, dress: Dress) -> Any:
    if type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str):
        return dress(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def _key(key: object) -> Any:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    if isinstance(key, int):
        return int.__repr__(key)
    return float.__repr__(key) if isinstance(key, float) else key
