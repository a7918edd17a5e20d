from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.cycle import Course, Phase, Step, cancellation, next_on_grid, publication, roll_over
from farmsyncd.core.refusal import Refused

S = 1_000_000_000
LEAD = 2 * S
V1, V2 = "1" * 40, "2" * 40


def published(course: Course, version: str, at: int, now: int = 0) -> Course:
    return publication(course, version, at, now, LEAD).after


def test_a_course_goes_from_idle_to_pending_to_frozen_to_due_and_idle_again() -> None:
    course = Course("shop")
    assert course.phase(0) is Phase.IDLE
    course = published(course, V1, 10 * S)
    assert [course.phase(at) for at in (0, 8 * S - 1, 8 * S, 10 * S - 1, 10 * S)] == [
        Phase.PENDING, Phase.PENDING, Phase.FROZEN, Phase.FROZEN, Phase.DUE,
    ]  # fmt: skip
    step = roll_over(course, 10 * S)
    assert step is not None
    assert step.activated == course.pending == step.after.active
    assert step.after.phase(10 * S) is Phase.IDLE


def test_nothing_is_rolled_over_before_its_time() -> None:
    course = published(Course("shop"), V1, 10 * S)
    assert roll_over(course, 10 * S - 1) is None
    assert roll_over(Course("shop"), 10 * S) is None


def test_a_later_publication_replaces_the_pending_one_and_says_which() -> None:
    course = published(Course("shop"), V1, 10 * S)
    step = publication(course, V2, 20 * S, 7 * S, LEAD)
    assert step.dropped == course.pending
    assert step.scheduled == step.after.pending
    assert step.after.pending is not None
    assert (step.after.pending.number, step.after.pending.version) == (2, V2)


def test_after_the_freeze_point_nothing_is_replaced_or_cancelled() -> None:
    course = published(Course("shop"), V1, 10 * S)
    for now in (8 * S, 9 * S, 10 * S, 11 * S):
        with pytest.raises(Refused, match="freeze point") as refused:
            publication(course, V2, 20 * S, now, LEAD)
        assert refused.value.code == "frozen"
        with pytest.raises(Refused) as refused:
            cancellation(course, now)
        assert refused.value.code == "frozen"


def test_a_publication_on_shorter_notice_than_the_lead_is_frozen_at_once() -> None:
    course = published(Course("shop"), V1, 5 * S, now=4 * S)
    assert course.pending is not None
    assert course.pending.freezes_at_ns == 4 * S
    assert course.phase(4 * S) is Phase.FROZEN


def test_a_time_that_has_passed_is_refused() -> None:
    for at in (5 * S, 5 * S - 1):
        with pytest.raises(Refused, match="future") as refused:
            publication(Course("shop"), V1, at, 5 * S, LEAD)
        assert refused.value.code == "bad"


def test_cancelling_needs_something_pending_and_never_frees_its_number() -> None:
    with pytest.raises(Refused) as refused:
        cancellation(Course("shop"), 0)
    assert refused.value.code == "unknown"
    course = cancellation(published(Course("shop"), V1, 10 * S), 0).after
    assert course.pending is None
    again = published(course, V1, 10 * S).pending
    assert again is not None
    assert again.number == 2


@given(period=st.integers(1, 10**13), offset=st.integers(0, 10**13), earliest=st.integers(0, 4 * 10**18))
def test_the_grid_is_regular_and_the_next_point_is_the_first_that_is_late_enough(
    period: int, offset: int, earliest: int
) -> None:
    at = next_on_grid(period, offset, earliest)
    assert (at - offset) % period == 0
    assert earliest <= at < earliest + period


@attrs.define
class History:
    """What a sequence of requests made of a course, at a clock that only goes forward."""

    course: Course
    now: int = 0
    activated: list[int] = attrs.Factory(list)


@given(
    st.lists(st.tuples(st.sampled_from(["publish", "cancel", "roll"]), st.integers(0, 5 * S), st.integers(1, 9 * S)))
)
def test_whatever_is_asked_revisions_and_numbers_only_grow_and_a_frozen_plan_comes_true(
    requests: list[tuple[str, int, int]],
) -> None:
    past = History(Course("shop"))
    for what, passes, ahead in requests:
        past.now += passes
        before = past.course
        step: Step | None = None
        frozen = before.phase(past.now) in {Phase.FROZEN, Phase.DUE}
        try:
            if what == "publish":
                step = publication(before, V1, past.now + ahead, past.now, LEAD)
            elif what == "cancel":
                step = cancellation(before, past.now)
            else:
                step = roll_over(before, past.now)
        except Refused:
            assert frozen or what == "cancel"
        if step is None:
            continue
        assert step.before == before
        assert step.after.revision == before.revision + 1
        assert step.after.last_cycle >= before.last_cycle
        if step.activated is not None:
            past.activated.append(step.activated.number)
            assert step.activated.activates_at_ns <= past.now
        else:
            assert not frozen
        past.course = step.after
    assert past.activated == sorted(set(past.activated))
