"""The kinds of values that a configuration knows: durations, sizes, names, paths, lists and tables.

A kind reads what TOML or the command line hands over, so a number may come as a number or as its text. What it
reads is in the units of the code: nanoseconds, bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs

from farmsyncd.core import words

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)
_DURATION = re.compile(rf"(?:{_AMOUNT.pattern} ?)+", re.ASCII)


@attrs.frozen
class Fault:
    """One thing that is wrong: the keys that lead to it, and what was expected and found there."""

    keys: tuple[str, ...]
    text: str


class Faults(ValueError):
    """Everything that is wrong within one value that holds others."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.text for fault in faults))
        self.faults = faults


@attrs.frozen
class Kind(Generic[T_co]):
    """One sort of value.

    ``what`` completes the sentence "expected ...". ``read`` raises ValueError for what it cannot use; the error's
    text, if any, says why. ``many`` tells the command line that the option may be repeated, ``flag`` that it takes
    no value, ``nested`` that it can only be said in a file.
    """

    what: str
    read: Callable[[object], T_co]
    many: bool = False
    flag: bool = False
    nested: bool = False


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _name(value: object) -> str:
    if not words.is_name(_text(value)):
        raise ValueError
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, int) or value not in {0, 1}:  # the command line knows flags as 0 and 1
        raise ValueError
    return bool(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    return float(value)


def _path(value: object) -> Path:
    return Path(_text(value)).expanduser().absolute()


def _amount(number: str, unit: str, units: Mapping[str, int]) -> int:
    if unit not in units:
        raise ValueError(f"{unit or 'no unit'} is none of {', '.join(unit for unit in units if unit)}")
    exact = Decimal(number) * units[unit]
    if exact != int(exact):
        raise ValueError("finer than the smallest unit")
    return int(exact)


def _duration(value: object) -> int:
    if value in (0, "0"):
        return 0
    text = _text(value)
    if _DURATION.fullmatch(text) is None:
        raise ValueError
    return sum(_amount(number, unit, _DURATION_UNITS) for number, unit in _AMOUNT.findall(text))


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    amount = _AMOUNT.fullmatch(_text(value))
    if amount is None:
        raise ValueError
    return _amount(amount[1], amount[2], _SIZE_UNITS)


def _rate(value: object) -> int:
    return _size(value.removesuffix("/s") if isinstance(value, str) else value)


def _host_port(value: object) -> tuple[str, int]:
    host, colon, port = _text(value).rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in square brackets")
    return host, int(port)


TEXT: Kind[str] = Kind("some text", _text)
NAME: Kind[str] = Kind(words.NAME_RULE, _name)
FLAG: Kind[bool] = Kind("true or false", _flag, flag=True)
INTEGER: Kind[int] = Kind("a whole number", _integer)
NUMBER: Kind[float] = Kind("a number", _number)
PATH: Kind[Path] = Kind("a path", _path)
DURATION: Kind[int] = Kind('a duration with its unit, such as "250ms", "5s" or "1h 30m"', _duration)
SIZE: Kind[int] = Kind('a size, such as "64KiB" or "4MiB"', _size)
RATE: Kind[int] = Kind('bytes per second, such as "20MiB" or "20MiB/s"', _rate)
HOST_PORT: Kind[tuple[str, int]] = Kind('an address, such as "10.0.0.5:8080" or "[::1]:8080"', _host_port)


def bounded(kind: Kind[T], least: str | float, most: str | float | None = None) -> Kind[T]:
    """The same within bounds, which are spelled as in a configuration and may be reached."""
    low: Any = kind.read(least)
    high: Any = None if most is None else kind.read(most)
    what = f"{kind.what}, at least {least}" + (f" and at most {most}" if most is not None else "")

    def read(value: object) -> T:
        found: Any = kind.read(value)
        if found < low or (high is not None and found > high):
            raise ValueError
        return found  # type: ignore[no-any-return]

    return attrs.evolve(kind, what=what, read=read)


def choice(*choices: str) -> Kind[str]:
    """One of a few fixed words."""

    def read(value: object) -> str:
        if value not in choices:
            raise ValueError
        return _text(value)

    return Kind(f"one of {', '.join(choices)}", read)


def listing(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """Any number of values; on the command line, the option repeated. A lone value counts as a list of one."""

    def read(value: object) -> tuple[T, ...]:
        items = value if isinstance(value, (list, tuple)) else [value]
        read_items: list[T] = []
        faults: list[Fault] = []
        for position, item in enumerate(items, 1):
            try:
                read_items.append(kind.read(item))
            except ValueError as error:
                faults += faults_of(error, kind, item, f"item {position}")
        if faults:
            raise Faults(faults)
        return tuple(read_items)

    return Kind(f"a list, each item {kind.what}", read, many=True, nested=kind.nested)


def faults_of(error: ValueError, kind: Kind[Any], value: object, key: str) -> list[Fault]:
    """What to say of ``value``, found under ``key``, which ``kind`` refused with ``error``."""
    if isinstance(error, Faults):
        return [Fault((key, *fault.keys), fault.text) for fault in error.faults]
    why = str(error) if _speaks(error) else ""
    return [Fault((key,), f"expected {kind.what}, found {shown(value)}" + (f" ({why})" if why else ""))]


def _speaks(error: ValueError) -> bool:
    """Whether the error was raised on purpose: int() and float() only repeat what is shown anyway."""
    text = str(error)
    return not text.startswith(("invalid literal for int()", "could not convert string to float"))


def shown(value: object) -> str:
    """``value`` as it may stand in a message: cut short, and on one line."""
    if value is None or value == "":
        return "nothing"
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 80 else text[:77] + "..."
