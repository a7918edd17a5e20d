"""A session's state in bytes: a MessagePack map from keys to values, in which each key can be read by itself.

What comes back is what was put in, of exactly the same type: where MessagePack knows no such type, the value travels in
an extension. Nothing is ever pickled, and nothing is taken for something that it only resembles: a value of another
type is refused, with the place where it is.

A request that reads one key pays for one key: :func:`split` finds where the values are without decoding them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from farmsyncd.core.session.faults import DamagedState, NotStorable, SessionTooLarge
from farmsyncd.core.session.kinds import Misfit, extend, fit, is_plain

Encoded = bytes | Raw
"""One value's encoding; ``bytes(encoded)`` gives what two of them are compared by."""

_KEYS_NAMED = 3

# What damaged bytes can make of the decoder and of the constructors of what extensions carry.
_DAMAGE = (msgspec.MsgspecError, RecursionError, ValueError, TypeError, ArithmeticError)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=extend).decode
_decode_map = msgspec.msgpack.Decoder(dict[str, Raw]).decode


def encode_value(value: object, where: str) -> bytes:
    """The encoding of one value; the same value always gives the same bytes, in whatever order a set holds it.

    ``where`` is the value's key, with which errors begin. Raises NotStorable for a type that sessions do not keep, for
    a text that is no Unicode text (lone surrogates), and for what is nested more than 100 deep or contains itself.
    """
    try:
        if is_plain(value):
            try:
                return _encode(value)
            except (UnicodeEncodeError, OverflowError):
                pass  # a large number, or a text that cannot be kept: looked at value by value
        return _encode(fit(value))
    except Misfit as misfit:
        raise NotStorable(f"{where}{misfit.place()}: {misfit}") from None


def decode_value(raw: Encoded) -> Any:
    """The value, a new object each time. Raises DamagedState for what :func:`encode_value` did not make."""
    try:
        return _decode(raw)
    except _DAMAGE as error:
        raise DamagedState(str(error)) from error


def check_key(key: object) -> None:
    """Raise NotStorable for a key that is no text, or a text that is no Unicode text."""
    try:
        if type(key) is not str:
            raise Misfit(f"expected a text as key, found {type(key).__qualname__}")
        fit(key)
    except Misfit as misfit:
        raise NotStorable(f"{str(key)[:40]!r}: {misfit}") from None


def join(parts: Mapping[str, Encoded]) -> bytes:
    """The whole state from its values' encodings. Raises NotStorable for a key that cannot be kept."""
    try:
        return _encode({key: value if type(value) is Raw else Raw(value) for key, value in parts.items()})
    except UnicodeEncodeError:
        for key in parts:
            check_key(key)
        raise


def split(state: bytes) -> dict[str, Raw]:
    """Each key's encoded value; they keep ``state`` alive. Raises DamagedState for bytes that are no state."""
    try:
        return _decode_map(state)
    except _DAMAGE as error:
        raise DamagedState(str(error)) from error


def check_size(state: bytes, limit: int) -> None:
    """Raise SessionTooLarge, naming the largest keys, when a state is of more than ``limit`` bytes."""
    if len(state) > limit:
        raise SessionTooLarge(
            f"expected a session of at most {limit} bytes, found {len(state)}; its largest keys are "
            f"{largest(state)}: keep what is large elsewhere, and its name in the session"
        )


def largest(state: bytes) -> str:
    """The largest keys of a state and how many bytes each takes, for a message: ``'cart' (12000), 'seen' (310)``."""
    sizes = sorted(((len(bytes(raw)), key) for key, raw in split(state).items()), reverse=True)
    return ", ".join(f"{key[:40]!r} ({size})" for size, key in sizes[:_KEYS_NAMED])
