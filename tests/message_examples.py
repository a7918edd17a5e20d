"""Strategies that make any message of the protocol, read off the messages' own fields."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from farmsyncd.core import words
from farmsyncd.core.messages import VERBS, Message

_BIGGEST = 2**63 - 1
_BY_KIND: dict[str, st.SearchStrategy[Any]] = {
    words.TEXT.what: st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    words.NAME.what: st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    words.VERSION.what: st.binary(min_size=20, max_size=20).map(bytes.hex),
    words.EPOCH.what: st.binary(min_size=8, max_size=8).map(bytes.hex),
    words.INTEGER.what: st.integers(-_BIGGEST, _BIGGEST),
    words.DIGEST.what: st.binary(min_size=32, max_size=32),
}
_NO_VALUE = ", or -"
_CHOICE = "one of "


def values(kind: words.Kind) -> st.SearchStrategy[Any]:
    """Any value that ``kind`` spells."""
    if kind.what.endswith(_NO_VALUE):
        return st.none() | _BY_KIND[kind.what.removesuffix(_NO_VALUE)]
    if kind.what.startswith(_CHOICE):
        return st.sampled_from(kind.what.removeprefix(_CHOICE).split(", "))
    return _BY_KIND[kind.what]


def _field(field: attrs.Attribute[Any]) -> st.SearchStrategy[Any]:
    if "kind" in field.metadata:
        return values(field.metadata["kind"])
    if "rest" in field.metadata:
        return st.lists(values(field.metadata["rest"]), max_size=5).map(tuple)
    if "netstring" in field.metadata:
        return st.binary(max_size=200)
    return st.lists(st.binary(max_size=200), min_size=1, max_size=4).map(tuple)


def messages_of(verb: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of one verb."""
    return st.builds(verb, *[_field(field) for field in attrs.fields(verb)])


def any_message() -> st.SearchStrategy[Message]:
    """Any message at all."""
    return st.one_of([messages_of(verb) for verb in VERBS.values()])
