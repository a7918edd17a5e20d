"""Values that sessions keep, for Hypothesis, and what it means that two of them are exactly the same."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OFFSETS = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(timezone)
ZONES = st.none() | st.just(UTC) | OFFSETS
FOLDS = st.integers(0, 1)
ATOMS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXTS,
    st.binary(max_size=20),
    st.builds(lambda one, fold: one.replace(fold=fold), st.datetimes(timezones=ZONES), FOLDS),
    st.dates(),
    st.builds(lambda one, fold: one.replace(fold=fold), st.times(timezones=ZONES), FOLDS),
    st.timedeltas(),
    st.decimals(),
    st.uuids(),
)


def is_in_order(value: Any) -> bool:
    """Whether a set can hold it and be compared: what is not a number is not equal to itself."""
    return not ((isinstance(value, float) and math.isnan(value)) or (isinstance(value, Decimal) and value.is_nan()))


KEYS: st.SearchStrategy[Any] = st.recursive(
    ATOMS.filter(is_in_order),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=5,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=5),
        st.sets(KEYS, max_size=5),
        st.frozensets(KEYS, max_size=5),
    ),
    max_leaves=20,
)
STATES = st.dictionaries(TEXTS, VALUES, max_size=6)


def exactly(value: Any) -> Any:
    """What tells a value from every other one, types and all: equal if and only if the values are the same."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [exactly(one) for one in value]
    if kind is dict:
        return kind, [(exactly(key), exactly(one)) for key, one in value.items()]
    if kind in (set, frozenset):
        return kind, sorted(repr(exactly(one)) for one in value)
    if kind is float:
        return kind, "nan" if math.isnan(value) else value.hex()
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind in (datetime, time):
        return kind, value.replace(tzinfo=None), value.utcoffset(), value.fold
    assert kind in (type(None), bool, int, str, bytes, date, timedelta, UUID), kind
    return kind, value
