"""Going ahead of other processes: for a moment, where it is allowed, and never for longer than asked."""

from __future__ import annotations

import os

import pytest

from farmsyncd.edges.timing.urgency import Urgency


def test_urgency_ends_as_it_began_whether_it_is_allowed_or_not() -> None:
    before = os.sched_getscheduler(0)
    urgency = Urgency()
    urgency.begin()
    urgency.begin()
    try:
        assert (os.sched_getscheduler(0) != before) is urgency.raised
    finally:
        urgency.end()
    urgency.end()
    assert os.sched_getscheduler(0) == before
    assert not urgency.raised


def test_urgency_that_is_refused_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: object) -> None:
        asked.append(1)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    urgency = Urgency()
    for _ in range(3):
        urgency.begin()
        urgency.end()
    assert not urgency.raised
    assert len(asked) == (1 if os.sched_getscheduler(0) in (os.SCHED_OTHER, os.SCHED_BATCH) else 0)
