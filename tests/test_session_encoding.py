"""What is put into a session comes back exactly; what cannot is refused, with its place."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from enum import IntEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farmsyncd.core.session.encoding import (
    check_key,
    check_size,
    decode_value,
    encode_value,
    join,
    largest,
    split,
)
from farmsyncd.core.session.faults import DamagedState, NotStorable, SessionTooLarge
from tests.session_values import STATES, VALUES, exactly


class Colour(IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Text(str):
    __slots__ = ()


@given(VALUES)
def test_every_value_comes_back_exactly_and_is_encoded_alike_again(value: Any) -> None:
    raw = encode_value(value, "key")
    again = decode_value(raw)
    assert exactly(again) == exactly(value)
    assert encode_value(again, "key") == raw == encode_value(value, "key")


@settings(max_examples=40)
@given(STATES)
def test_a_state_is_joined_and_split_key_by_key_in_its_order(state: dict[str, Any]) -> None:
    parts = {key: encode_value(value, key) for key, value in state.items()}
    raw = join(parts)
    assert [(key, bytes(one)) for key, one in split(raw).items()] == list(parts.items())
    assert exactly({key: decode_value(one) for key, one in split(raw).items()}) == exactly(state)
    assert join(split(raw)) == raw


@given(st.binary(max_size=60))
def test_damaged_bytes_raise_one_clear_error_and_nothing_else(raw: bytes) -> None:
    for read in (decode_value, split):
        try:
            read(raw)
        except DamagedState as error:
            assert str(error).startswith("expected a session's state as farmsync encodes it")  # noqa: PT017


@settings(max_examples=40)
@given(STATES, st.data())
def test_a_state_in_which_a_byte_changed_is_read_or_called_damaged(state: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(join({key: encode_value(value, key) for key, value in state.items()}))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        for one in split(bytes(raw)).values():
            decode_value(one)
    except DamagedState:
        pass


@pytest.mark.parametrize("raw", [b"\x91" * 100_000 + b"\xc0", b"\xc7\x05\x02" * 5000, b"\xc7\x00\x63", b"\xd4\x08\x90"])
def test_bytes_made_to_hurt_are_damage_too(raw: bytes) -> None:
    with pytest.raises(DamagedState):
        decode_value(raw)
    with pytest.raises(DamagedState):
        split(raw)


def test_a_set_of_what_cannot_be_in_a_set_is_damage() -> None:
    inner = msgspec.msgpack.encode([[1]])
    with pytest.raises(DamagedState):
        decode_value(msgspec.msgpack.encode(msgspec.msgpack.Ext(3, inner)))


def test_each_value_that_comes_back_is_an_object_of_its_own() -> None:
    raw = encode_value({"lines": []}, "cart")
    one, other = decode_value(raw), decode_value(raw)
    one["lines"].append("shoes")
    assert other == {"lines": []}


def test_sets_are_encoded_alike_however_they_were_filled() -> None:
    numbers = [*range(0, 3000, 7), "a", "b", (1, 2), None, 2.5]
    encoded = set()
    for seed in range(10):
        random.Random(seed).shuffle(numbers)
        encoded.add(encode_value(set(numbers), "seen"))
    assert len(encoded) == 1


def test_a_time_in_a_named_zone_keeps_its_instant_and_its_offset() -> None:
    there = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    back = decode_value(encode_value(there, "at"))
    assert back == there
    assert back.utcoffset() == timedelta(hours=2)
    assert type(back.tzinfo) is timezone


def test_a_decimal_is_encoded_alike_in_every_context() -> None:
    plain = encode_value(Decimal("1E+50"), "sum")
    with localcontext() as context:
        context.capitals = 0
        context.prec = 2
        assert encode_value(Decimal("1E+50"), "sum") == plain
        assert decode_value(encode_value(Decimal("1.23456"), "sum")) == Decimal("1.23456")


def test_numbers_keep_their_types_where_python_takes_them_for_equal() -> None:
    values = [1, True, 1.0, Decimal(1), 0, False, 0.0, -0.0]
    back = decode_value(encode_value(values, "numbers"))
    assert [(type(one), str(one)) for one in back] == [(type(one), str(one)) for one in values]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "cart: expected one of None, bool, int, "),
        (object(), "Decimal and UUID, found object"),
        ([1, {"price": [object()]}], "cart[1].price[0]: expected one of"),
        ({"a b": object()}, "cart['a b']: expected one of"),
        ({"x": (1, object())}, "cart.x[1]: expected one of"),
        ({1: 2}, "cart['1']: expected a text as key, found int"),
        ({Text("a"): 2}, "cart['a']: expected a text as key, found Text, which is a kind of str: convert it"),
        ([Colour.RED], "cart[0]: expected one of None, bool, int"),
        (Colour.RED, "found Colour, which is a kind of int: convert it to one first"),
        (Point(1), "found Point, which is a kind of tuple: convert it to one first"),
        ({"t": Text("a")}, "cart.t: "),
        (bytearray(b"x"), "found bytearray"),
        ({frozenset({Point(1)})}, "cart{...}"),
        ("x\ud800", "cart: expected Unicode text, found half a surrogate pair at character 1"),
        (["fine", "\udfff"], "cart[1]: expected Unicode text"),
        ({"\ud800": 1}, "expected Unicode text"),
        ({"when": (datetime.now(UTC), {"\ud800"})}, "cart.when[1]{...}: expected Unicode text"),
    ],
)
def test_what_cannot_be_kept_is_named_with_its_place(value: object, message: str) -> None:
    with pytest.raises(NotStorable) as caught:
        encode_value(value, "cart")
    assert message in str(caught.value)


def test_what_is_nested_too_deep_is_refused_and_what_is_nested_deep_is_not() -> None:
    def nested(depth: int, kind: Any) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = kind([value])
        return value

    for kind in (list, tuple, frozenset, lambda inner: {"a": inner[0]}):
        deep = nested(100, kind)
        assert decode_value(encode_value(deep, "deep")) == deep
        with pytest.raises(NotStorable, match="deep: expected values at most 100 deep in each other"):
            encode_value(nested(101, kind), "deep")


def test_what_contains_itself_is_refused_soon() -> None:
    alone: list[Any] = []
    alone.append(alone)
    twice: dict[str, Any] = {}
    twice["a"] = twice["b"] = twice
    many: Any = []
    for _ in range(60):
        many = [many, many]
    for value in (alone, twice, many, (alone,)):
        with pytest.raises(NotStorable):
            encode_value(value, "loop")


@pytest.mark.parametrize("key", [1, None, b"a", Text("a"), "\ud800"])
def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    with pytest.raises(NotStorable):
        check_key(key)


def test_a_key_that_is_no_unicode_text_is_not_joined() -> None:
    with pytest.raises(NotStorable, match="half a surrogate pair"):
        join({"fine": b"\x01", "\ud800": b"\x01"})
    check_key("schön")


def test_a_state_above_the_limit_names_its_largest_keys() -> None:
    state = {"cart": "x" * 500, "seen": "y" * 300, "user": 7, "theme": "dark"}
    raw = join({key: encode_value(value, key) for key, value in state.items()})
    check_size(raw, len(raw))
    with pytest.raises(SessionTooLarge) as caught:
        check_size(raw, len(raw) - 1)
    assert f"at most {len(raw) - 1} bytes, found {len(raw)}" in str(caught.value)
    assert "'cart' (503), 'seen' (303), 'theme' (5):" in str(caught.value)
    assert largest(raw) == "'cart' (503), 'seen' (303), 'theme' (5)"
