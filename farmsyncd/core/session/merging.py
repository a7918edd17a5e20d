"""Two requests that changed one session at the same time: their changes become one state, key by key."""

from __future__ import annotations

from collections.abc import Mapping

from farmsyncd.core.session.encoding import Encoded
from farmsyncd.core.session.faults import SessionConflict


def merge(
    base: Mapping[str, Encoded], ours: Mapping[str, Encoded | None], theirs: Mapping[str, Encoded]
) -> dict[str, Encoded]:
    """The state that has their changes and ours.

    ``base`` is the state that this request read, ``ours`` the keys that it changed (None for a deleted one), ``theirs``
    the state that another request has stored since. Raises SessionConflict for a key that both changed, *also when both
    wrote the same value*: two requests that add one to a counter both write 1, and taking them for one change would
    lose the other. A key of ours that they did not change is ours to write.
    """
    merged = dict(theirs)
    for key, value in ours.items():
        if not _same(base.get(key), theirs.get(key)):
            raise SessionConflict(key)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _same(one: Encoded | None, other: Encoded | None) -> bool:
    if one is None or other is None:
        return one is other
    return bytes(one) == bytes(other)
