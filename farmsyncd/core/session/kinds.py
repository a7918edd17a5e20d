"""The types of values that a session keeps, and how those travel that MessagePack does not know.

``is_plain`` tells quickly that a value is made of nothing but what MessagePack keeps exactly. ``fit`` turns every other
value into one that it can, or says where in it something is that sessions do not keep. ``extend`` undoes ``fit``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

DEEPEST = 100
MOST_VALUES = 1_000_000

ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_IS_TEXT = frozenset({str}).__contains__
_KEPT = (
    "None, bool, int, float, str, bytes, list, dict, tuple, set, frozenset, datetime, date, time, timedelta, Decimal "
    "and UUID"
)

_encode = msgspec.msgpack.Encoder().encode


class Misfit(Exception):
    """Something in a value cannot be kept. The steps lead to it, the last one first."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.steps: list[str] = []

    def place(self) -> str:
        """Where it is in the value: ``[3].price``."""
        return "".join(reversed(self.steps))


def is_plain(value: object) -> bool:
    """Whether MessagePack keeps the types of this value and of all in it; raises Misfit when too much is in it."""
    kind = type(value)
    return kind in ATOMS or (kind in _CONTAINERS and _holds_plain(value, DEEPEST, [MOST_VALUES]))


def _holds_plain(container: Any, deeper: int, room: list[int]) -> bool:
    """The same for a container. ``room`` is how many more values may be met: one value can be met very often."""
    room[0] -= len(container)
    if room[0] < 0:
        raise Misfit(f"expected at most {MOST_VALUES} values in one, found more")
    if not deeper:
        raise Misfit(
            f"expected values at most {DEEPEST} deep in each other, found more, or a value that contains itself"
        )
    plain = type(container) is list
    if type(container) is dict:
        plain = all(map(_IS_TEXT, map(type, container)))
        container = container.values()
    for one in container:
        kind = type(one)
        if kind not in ATOMS:
            plain = kind in _CONTAINERS and _holds_plain(one, deeper - 1, room) and plain
    return plain


def fit(value: Any) -> Any:
    """The same in what MessagePack knows. Call :func:`is_plain` first: this one does not look how deep it goes."""
    how = _FITTING.get(type(value))
    if how is None:
        raise Misfit(f"expected one of {_KEPT}, found {_kind(value)}")
    return how(value)


def extend(code: int, data: memoryview) -> Any:
    """The value that an extension carries. Of bytes that :func:`fit` did not make, the types' constructors complain."""
    how = _EXTENDING.get(code)
    if how is None:
        raise ValueError(f"expected an extension of a session's values, found number {code}")
    return how(data)


_decode_list = msgspec.msgpack.Decoder(list[Any], ext_hook=extend).decode
_decode_timedelta = msgspec.msgpack.Decoder(tuple[int, int, int]).decode


def _kind(value: object) -> str:
    for base in type(value).__mro__[1:-1]:
        if base in _FITTING:
            return f"{type(value).__qualname__}, which is a kind of {base.__name__}: convert it to one first"
    return type(value).__qualname__


def _fit_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Misfit(f"expected Unicode text, found half a surrogate pair at character {error.start}") from None
    return value


def _fit_int(value: int) -> int | Ext:
    if -(2**63) <= value < 2**64:
        return value
    return Ext(1, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _fit_items(value: Any) -> list[Any]:
    fitted: list[Any] = []
    try:
        for one in value:
            fitted.append(fit(one))  # noqa: PERF401  its length says where it went wrong
    except Misfit as misfit:
        misfit.steps.append(f"[{len(fitted)}]")
        raise
    return fitted


def _fit_dict(value: dict[Any, Any]) -> dict[str, Any]:
    fitted: dict[str, Any] = {}
    for key, one in value.items():
        try:
            if type(key) is not str:
                raise Misfit(f"expected a text as key, found {_kind(key)}")
            fitted[_fit_text(key)] = fit(one)
        except Misfit as misfit:
            misfit.steps.append(f".{key}" if type(key) is str and key.isidentifier() else f"[{str(key)[:40]!r}]")
            raise
    return fitted


def _in_order(value: set[Any] | frozenset[Any]) -> bytes:
    try:
        return _encode([Raw(one) for one in sorted([_encode(fit(one)) for one in value])])
    except Misfit as misfit:
        misfit.steps.append("{...}")
        raise


def _fit_datetime(value: datetime) -> Ext:
    return Ext(5, (value.isoformat() + "f" * value.fold).encode())


def _extend_datetime(data: memoryview) -> datetime:
    text = str(data, "ascii")
    return datetime.fromisoformat(text[:-1]).replace(fold=1) if text.endswith("f") else datetime.fromisoformat(text)


def _fit_time(value: time) -> Ext:
    return Ext(7, (value.isoformat() + "f" * value.fold).encode())


def _extend_time(data: memoryview) -> time:
    text = str(data, "ascii")
    return time.fromisoformat(text[:-1]).replace(fold=1) if text.endswith("f") else time.fromisoformat(text)


def _fit_decimal(value: Decimal) -> Ext:
    # A context may ask for a small e; the same number is always the same bytes here.
    return Ext(9, str(value).replace("e", "E").encode())


_FITTING: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _fit_int,
    float: lambda value: value,
    str: _fit_text,
    bytes: lambda value: value,
    list: _fit_items,
    dict: _fit_dict,
    tuple: lambda value: Ext(2, _encode(_fit_items(value))),
    set: lambda value: Ext(3, _in_order(value)),
    frozenset: lambda value: Ext(4, _in_order(value)),
    datetime: _fit_datetime,
    date: lambda value: Ext(6, value.isoformat().encode()),
    time: _fit_time,
    timedelta: lambda value: Ext(8, _encode([value.days, value.seconds, value.microseconds])),
    Decimal: _fit_decimal,
    UUID: lambda value: Ext(10, value.bytes),
}

# These numbers are in databases: a type keeps its number for ever.
_EXTENDING: dict[int, Callable[[memoryview], Any]] = {
    1: lambda data: int.from_bytes(data, "big", signed=True),
    2: lambda data: tuple(_decode_list(data)),
    3: lambda data: set(_decode_list(data)),
    4: lambda data: frozenset(_decode_list(data)),
    5: _extend_datetime,
    6: lambda data: date.fromisoformat(str(data, "ascii")),
    7: _extend_time,
    8: lambda data: timedelta(*_decode_timedelta(data)),
    9: lambda data: Decimal(str(data, "ascii")),
    10: lambda data: UUID(bytes=bytes(data)),
}
