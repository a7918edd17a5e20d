"""Changes made at once become one state, and none of them is lost unsaid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.session.faults import SessionConflict
from farmsyncd.core.session.merging import merge

KEYS = st.sampled_from("abcd")
RAW = st.sampled_from([b"\x01", b"\x02", b"\x03"])
STATES = st.dictionaries(KEYS, RAW)
CHANGES = st.dictionaries(KEYS, st.none() | RAW)


def changed(base: dict[str, bytes], changes: dict[str, bytes | None]) -> dict[str, bytes]:
    after = {**base, **{key: raw for key, raw in changes.items() if raw is not None}}
    return {key: raw for key, raw in after.items() if changes.get(key, raw) is not None}


@given(STATES, CHANGES, CHANGES)
def test_a_merge_holds_both_changes_or_names_a_key_that_both_changed(
    base: dict[str, bytes], ours: dict[str, bytes | None], others: dict[str, bytes | None]
) -> None:
    others = {key: raw for key, raw in others.items() if raw != base.get(key)}
    theirs = changed(base, others)
    both = {key for key in ours if base.get(key) != theirs.get(key)}
    before = (dict(base), dict(ours), dict(theirs))
    try:
        merged = merge(base, ours, theirs)
    except SessionConflict as conflict:
        assert conflict.key in both  # noqa: PT017
        assert repr(conflict.key) in str(conflict)  # noqa: PT017
    else:
        assert not both
        assert merged == changed(theirs, ours) == changed(changed(base, ours), others)
    assert (base, ours, theirs) == before


def test_two_that_add_one_at_once_are_a_conflict_though_both_write_the_same() -> None:
    with pytest.raises(SessionConflict) as caught:
        merge({"shoes": b"\x01"}, {"shoes": b"\x02"}, {"shoes": b"\x02"})
    assert caught.value.key == "shoes"


def test_two_that_put_in_the_same_new_key_are_a_conflict() -> None:
    with pytest.raises(SessionConflict):
        merge({}, {"shoes": b"\x01"}, {"shoes": b"\x01"})


def test_a_deletion_is_a_change() -> None:
    assert merge({"a": b"\x01", "b": b"\x01"}, {"a": None}, {"a": b"\x01", "b": b"\x02"}) == {"b": b"\x02"}
    with pytest.raises(SessionConflict):
        merge({"a": b"\x01"}, {"a": None}, {"a": b"\x02"})
    with pytest.raises(SessionConflict):
        merge({"a": b"\x01"}, {"a": b"\x02"}, {})
    with pytest.raises(SessionConflict):
        merge({"a": b"\x01"}, {"a": None}, {})
