"""What Flask's and Django's own sessions take and farmsync's do not: it is kept as JSON would have it."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.session.encoding import decode_value, encode_value
from farmsyncd.core.session.faults import NotStorable
from farmsyncd.sessions.jsonlike import encode_as_json_would


class Text(str):
    """As frameworks' texts that are safe to show."""

    __slots__ = ()


class Count(int):
    """A kind of int."""


class Share(float):
    """A kind of float."""


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


KEYS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=3),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([None, True, False, Colour.RED, Size.LARGE, Text("safe"), Count(7)]),
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from([Colour.RED, Size.LARGE, Text("safe"), Count(7), Share(0.5)]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=3).map(lambda made: defaultdict(int, made)),
    ),
    max_leaves=8,
)


def types(value: Any) -> Any:
    """The value with the type of each thing in it."""
    if isinstance(value, dict):
        return dict, {key: types(one) for key, one in value.items()}
    return (list, [types(one) for one in value]) if isinstance(value, list) else (type(value), value)


@given(VALUES)
def test_whatever_json_takes_comes_back_as_from_json(value: Any) -> None:
    kept = decode_value(encode_as_json_would(value, "key"))
    assert types(kept) == types(json.loads(json.dumps(value)))


@given(VALUES)
def test_the_same_value_always_makes_the_same_bytes(value: Any) -> None:
    raw = encode_as_json_would(value, "key")
    assert raw == encode_as_json_would(value, "key")
    assert raw == encode_value(decode_value(raw), "key")


def test_what_farmsync_keeps_exactly_stays_exact() -> None:
    value = {"pair": (1, 2), "set": {1}, "bytes": b"x", 5: frozenset({Text("safe")})}
    kept = decode_value(encode_as_json_would(value, "key"))
    assert kept == {"pair": (1, 2), "set": {1}, "bytes": b"x", "5": frozenset({"safe"})}


@pytest.mark.parametrize(
    ("value", "place"),
    [(object(), "cart: "), ({"a": [1, object()]}, r"cart\.a\[1\]: "), ({5: {(1, 2): 3}}, r"cart\['5'\]\[")],
)
def test_what_not_even_json_takes_is_named(value: object, place: str) -> None:
    with pytest.raises(NotStorable, match=f"^{place}"):
        encode_as_json_would(value, "cart")


def test_a_value_that_contains_itself_is_refused() -> None:
    value: dict[Any, Any] = {}
    value[5] = value
    with pytest.raises(NotStorable):
        encode_as_json_would(value, "cart")
