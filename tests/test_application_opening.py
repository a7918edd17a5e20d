"""A sessions' database that is not there when a node starts is asked again until it is."""

from __future__ import annotations

from typing import cast

import pytest

from farmsyncd.core.session.faults import StoreUnavailable, WrongSchema
from farmsyncd.errors import FarmsyncError
from farmsyncd.node.application.opening import Preparing
from farmsyncd.sessions import Sessions
from farmsyncd.sessions.stores.base import Store
from tests.sessions_memory import MemoryStore


class Late(MemoryStore):
    """A store that cannot be prepared while ``fault`` is there."""

    fault: FarmsyncError | None = StoreUnavailable("away")
    asked = 0

    def prepare(self) -> None:
        self.asked += 1
        if self.fault is not None:
            raise self.fault


def test_a_store_is_prepared_before_it_is_first_used_and_then_stands_aside() -> None:
    now = [0.0]
    store = Late()
    preparing = Preparing(store, lambda: now[0])
    with pytest.raises(StoreUnavailable):
        preparing.prepare_again()
    assert preparing.why_not == "away"
    sessions = Sessions(cast("Store", preparing))
    session = sessions.open(None)
    session["a"] = 1
    with pytest.raises(StoreUnavailable, match="away"):
        session.commit()
    assert store.asked == 1, "not again within a second"
    assert preparing.generation() is None
    now[0] = 1.5
    with pytest.raises(StoreUnavailable):
        session.commit()
    assert store.asked == 2
    store.fault, now[0] = None, 3.0
    session.commit()
    assert preparing.why_not is None
    assert preparing.read == store.read, "nothing is in between any more"
    sessions.close()


def test_tables_of_another_version_are_told_once_when_they_are_found_late() -> None:
    now = [0.0]
    store = Late()
    preparing = Preparing(store, lambda: now[0])
    with pytest.raises(StoreUnavailable):
        preparing.prepare_again()
    store.fault = WrongSchema("of version 9")
    for second in (2.0, 4.0):
        now[0] = second
        with pytest.raises(StoreUnavailable, match="of version 9"):
            preparing.stats()
    assert preparing.why_not == "of version 9"
