"""The words of a verb line: how values become visible ASCII, and back.

A word is one or more visible ASCII characters. Text that holds anything else (a space, a newline, a byte outside
ASCII) is written with ``%XX`` for each such byte of its UTF-8, and so are ``%`` itself, a plus sign at the beginning
and a text that is just ``-``; the empty text is a lone ``%``; "no value" is ``-``.
Reading is strict: each value has one spelling, so equal messages are equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

NONE = "-"
_PLAIN = frozenset(range(0x21, 0x7F)) - frozenset(b"%")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VERSION = re.compile(r"[0-9a-f]{40}", re.ASCII)
_EPOCH = re.compile(r"[0-9a-f]{16}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_TOO_MUCH = 1 << 63


@attrs.frozen
class Kind:
    """How one sort of value is spelled as a word.

    ``what`` completes the sentence "expected ...". ``encode`` raises ValueError for a value that has no spelling, and
    ``decode`` for a word that spells no value.
    """

    what: str
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


def quote(data: bytes) -> str:
    """Spell ``data`` as one word."""
    if data == b"-":
        return "%2D"  # a lone one is no value
    if not data:
        return "%"
    spelled = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)
    return spelled if spelled[0] != "+" else f"%2B{spelled[1:]}"  # a plus sign announces netstrings


def unquote(word: str) -> bytes:
    """The bytes that ``word`` spells; ValueError when it is not how :func:`quote` would spell them."""
    data = b"" if word == "%" else _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), word.encode("ascii"))
    if quote(data) != word:
        raise ValueError(f"{word!r} is not spelled as a word")
    return data


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{text!r} is not {what}")
        return text

    return check


def _integer(word: str) -> int:
    if _INTEGER.fullmatch(word) is None or not -_TOO_MUCH <= int(word) < _TOO_MUCH:
        raise ValueError(f"{word!r} is not an integer of 64 bits")
    return int(word)


def _digest(word: str) -> bytes:
    if _DIGEST.fullmatch(word) is None:
        raise ValueError(f"{word!r} is not a digest")
    return bytes.fromhex(word)


def _digest_word(digest: bytes) -> str:
    if len(digest) != 32:
        raise ValueError(f"{digest!r} is not a digest")
    return digest.hex()


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return check


def optional(kind: Kind) -> Kind:
    """The same, or ``-`` for None."""
    return Kind(
        f"{kind.what}, or -",
        lambda value: NONE if value is None else kind.encode(value),
        lambda word: None if word == NONE else kind.decode(word),
    )


def choice(*choices: str) -> Kind:
    """One of a few fixed words."""
    check = _one_of(choices)
    return Kind(f"one of {', '.join(choices)}", check, check)


def is_name(text: str) -> bool:
    """Whether ``text`` can name a dataset or a node."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether ``text`` has the form of a version: 40 hexadecimal digits."""
    return _VERSION.fullmatch(text) is not None


def printable(text: str, longest: int = 500) -> str:
    """``text`` as it may stand in a log or on a terminal: peers' own words are in it, and may be long or worse."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:longest])


NAME_RULE = "a name (letters, digits, '.', '_' and '-', at most 64, the first a letter or digit)"
TEXT = Kind("a word", lambda text: quote(text.encode()), lambda word: unquote(word).decode())
NAME = Kind(NAME_RULE, _matching(_NAME, "a name"), _matching(_NAME, "a name"))
VERSION = Kind("a version (40 hexadecimal digits)", *[_matching(_VERSION, "a version")] * 2)
EPOCH = Kind("an epoch (16 hexadecimal digits)", *[_matching(_EPOCH, "an epoch")] * 2)
INTEGER = Kind("an integer (of 64 bits)", lambda number: str(_integer(str(number))), _integer)
DIGEST = Kind("a digest (64 hexadecimal digits)", _digest_word, _digest)
