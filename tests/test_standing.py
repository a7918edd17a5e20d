"""What a node should do about a dataset: plain decisions, over everything that may come together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.messages.schedule import NODE_STATES, Plan
from farmsyncd.core.standing import NEAR_NS, Decision, Holding, Known, Turn, decide, due, hear, state

A, B, C = (letter * 40 for letter in "abc")
S = 1_000_000_000


def plan(revision: int, active: Turn | None, coming: Turn | None = None, lead: int = 2 * S) -> Plan:
    return Plan(
        "shop",
        revision,
        *((active.cycle, active.version, active.at_ns) if active else (None, None, None)),
        *((coming.cycle, coming.version, coming.at_ns, coming.at_ns - lead) if coming else (None, None, None, None)),
    )


FIVE, SIX = Turn(5, A, 100 * S), Turn(6, B, 200 * S)
KNOWN = hear(Known(), plan(1, FIVE, SIX), 0)


def test_a_node_with_nothing_copies_what_is_active() -> None:
    assert decide(KNOWN, Holding(), 150 * S) == Decision(stage=FIVE)


def test_without_a_clock_comparison_what_the_data_server_calls_active_is_due() -> None:
    assert decide(KNOWN, Holding(), None) == Decision(stage=FIVE)
    assert decide(KNOWN, Holding(None, frozenset({A})), None) == Decision(flip=FIVE, stage=SIX)


def test_a_node_that_serves_the_active_version_stages_the_next_and_then_waits_for_its_time() -> None:
    assert decide(KNOWN, Holding(FIVE, frozenset({A})), 150 * S) == Decision(stage=SIX)
    assert decide(KNOWN, Holding(FIVE, frozenset({A, B})), 150 * S) == Decision(arm=SIX)
    assert decide(KNOWN, Holding(FIVE, frozenset({A, B})), 200 * S) == Decision(flip=SIX)
    assert decide(KNOWN, Holding(SIX, frozenset({A, B})), 201 * S) == Decision()


def test_a_turn_whose_time_has_come_is_due_although_the_data_server_has_not_said_so() -> None:
    assert due(KNOWN, 200 * S - 1) == FIVE
    assert due(KNOWN, 200 * S) == SIX
    assert decide(KNOWN, Holding(FIVE, frozenset({A})), 200 * S) == Decision(stage=SIX)


def test_a_copy_of_the_active_version_gives_way_when_the_next_one_s_time_comes() -> None:
    assert decide(KNOWN, Holding(), 199 * S - 1).stage == FIVE
    assert decide(KNOWN, Holding(), 200 * S).stage == SIX


def test_just_before_a_frozen_turn_a_node_with_nothing_goes_straight_for_it() -> None:
    near = SIX.at_ns - NEAR_NS
    assert decide(KNOWN, Holding(), near) == Decision(stage=SIX)
    assert decide(KNOWN, Holding(None, frozenset({B})), near) == Decision(arm=SIX), "and then waits for its time"
    assert decide(KNOWN, Holding(None, frozenset({B})), near - 1) == Decision(arm=SIX, stage=FIVE)
    unfrozen = hear(Known(), plan(1, FIVE, SIX, lead=0), 0)
    assert decide(unfrozen, Holding(), near) == Decision(stage=FIVE)


def test_turns_that_were_missed_are_not_made_up_for() -> None:
    known = hear(Known(), plan(9, Turn(8, C, 300 * S)), 5)
    assert decide(known, Holding(FIVE, frozenset({A, B})), 301 * S) == Decision(stage=Turn(8, C, 300 * S))


def test_a_later_cycle_may_lead_back_to_an_earlier_version() -> None:
    known = hear(Known(), plan(9, Turn(7, A, 300 * S)), 6)
    assert decide(known, Holding(SIX, frozenset({A, B})), 301 * S) == Decision(flip=Turn(7, A, 300 * S))


def test_an_older_plan_is_ignored_and_a_plan_behind_what_was_seen_is_objected_to() -> None:
    assert hear(KNOWN, plan(0, FIVE), 5) is KNOWN
    behind = hear(KNOWN, plan(7, Turn(3, A, 1)), 5)
    assert "expected cycle 5 or a later one" in behind.objection
    assert (behind.active, behind.next) == (KNOWN.active, KNOWN.next)
    assert state(behind, Holding(FIVE, frozenset({A})), 150 * S, staging=False, failed=False) == "failed"
    assert hear(behind, plan(8, FIVE), 5).objection == ""
    other = hear(KNOWN, plan(7, Turn(5, C, 1)), 5)
    assert f"expected cycle 5 to be of {A}, and the data server says {C}" in other.objection
    assert other.active == KNOWN.active


def test_a_plan_that_was_told_just_before_the_activation_is_no_reason_to_object_after_it() -> None:
    late = hear(KNOWN, plan(1, FIVE, SIX), 6)
    assert late.objection == ""
    for now_ns in (None, 199 * S, 201 * S):
        assert decide(late, Holding(SIX, frozenset({A, B})), now_ns) == Decision()
        assert decide(late, Holding(None, frozenset({A})), now_ns).flip is None  # five is over, whatever the clock says


def test_a_node_that_was_away_when_a_cycle_was_cancelled_takes_part_in_the_next_one() -> None:
    six = Known(active=SIX)
    assert "expected cycle 6" in hear(six, plan(3, FIVE), 6).objection
    seven = Turn(7, C, 300 * S)
    known = hear(six, plan(4, FIVE, seven), 6)
    assert known.objection == ""
    assert decide(known, Holding(SIX, frozenset({A, B})), 250 * S) == Decision(stage=seven)
    assert decide(known, Holding(SIX, frozenset({A, B, C})), 250 * S) == Decision(arm=seven)
    assert f"expected cycle 6 to be of {B}" in hear(six, plan(4, FIVE, Turn(6, C, 300 * S)), 6).objection


def test_how_a_node_stands_in_one_word() -> None:
    def word(holding: Holding, now_ns: int | None, *, staging: bool = False, failed: bool = False) -> str:
        return state(KNOWN, holding, now_ns, staging=staging, failed=failed)

    both = frozenset({A, B})
    assert word(Holding(), 150 * S) == "empty"
    assert word(Holding(), 150 * S, staging=True) == "staging"
    assert word(Holding(FIVE, frozenset({A})), 150 * S, staging=True) == "staging"
    assert word(Holding(FIVE, both), 150 * S) == "staged"
    assert word(Holding(FIVE, both), 200 * S) == "late"
    assert word(Holding(FIVE, frozenset({A})), 200 * S, staging=True) == "late"
    assert word(Holding(SIX, both), 200 * S) == "ready"
    assert word(Holding(FIVE, both), 150 * S, failed=True) == "failed"


VERSIONS = st.sampled_from([A, B, C])
TIMES = st.integers(0, 50)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Known, Holding, int | None]:
    def turn(cycle: int) -> Turn:
        return Turn(cycle, draw(VERSIONS), draw(TIMES))

    active = draw(st.none() | st.integers(1, 5).map(turn))
    coming = draw(st.none() | st.integers(1, 3).map(lambda more: turn((active.cycle if active else 0) + more)))
    holding = Holding(draw(st.none() | st.integers(1, 9).map(turn)), frozenset(draw(st.sets(VERSIONS))))
    freezes = None if coming is None else draw(TIMES)
    return Known(1, active, coming, freezes), holding, draw(st.none() | TIMES)


@given(situations())
def test_whatever_comes_together_a_node_never_goes_back_nor_serves_what_is_not_complete(
    situation: tuple[Known, Holding, int | None],
) -> None:
    known, holding, now_ns = situation
    decision = decide(known, holding, now_ns)
    served = holding.active.cycle if holding.active else 0
    for turn in (decision.flip, decision.arm):
        assert turn is None or (turn.version in holding.complete and turn.cycle > served)
    assert decision.stage is None or decision.stage.version not in holding.complete
    assert decision.stage is None or decision.stage.cycle > served
    if decision.flip is not None:
        assert decision.flip == due(known, now_ns)
        assert decision.arm is None or decision.arm.cycle > decision.flip.cycle
    if decision.arm is not None and now_ns is not None:
        assert decision.arm.at_ns > now_ns
    assert state(known, holding, now_ns, staging=False, failed=False) in NODE_STATES


@given(situations())
def test_carrying_decisions_out_ends_with_the_due_turn_served_and_the_next_one_waited_for(
    situation: tuple[Known, Holding, int | None],
) -> None:
    known, holding, now_ns = situation
    for _ in range(6):
        decision = decide(known, holding, now_ns)
        if decision.stage is not None:
            holding = Holding(holding.active, holding.complete | {decision.stage.version})
        if decision.flip is not None:
            holding = Holding(decision.flip, holding.complete)
    decision = decide(known, holding, now_ns)
    assert (decision.flip, decision.stage) == (None, None)
    wanted = due(known, now_ns)
    if wanted is not None:
        assert holding.active is not None
        assert holding.active.cycle >= wanted.cycle
    assert state(known, holding, now_ns, staging=False, failed=False) in {"empty", "ready", "staged"}
