from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.eligibility import KEEPS, TIERS, Activation, Facts, Order, State, missed, rule, state_of

farms = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(State))
facts = st.builds(Facts, st.sampled_from(Order), st.booleans(), st.booleans(), st.booleans())


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (Facts(), State.READY),
        (Facts(order=Order.DRAIN), State.DRAINING),
        (Facts(seen=False), State.DRAINING),
        (Facts(missed=True), State.STALE),
        (Facts(up=False), State.DOWN),
        (Facts(order=Order.MAINT), State.MAINTENANCE),
        (Facts(order=Order.DRAIN, missed=True), State.STALE),
        (Facts(up=False, missed=True, seen=False), State.DOWN),
    ],
)
def test_a_nodes_state_follows_from_what_is_known(known: Facts, state: State) -> None:
    assert state_of(known) is state


@given(facts)
def test_what_the_operator_took_out_stays_out_and_only_a_node_without_fault_is_ready(known: Facts) -> None:
    state = state_of(known)
    assert (state is State.MAINTENANCE) == (known.order is Order.MAINT)
    assert (state is State.READY) == (known == Facts())


@given(farms)
def test_the_last_eligible_node_is_never_taken_away(states: dict[str, State]) -> None:
    ruling = rule(states)
    able = {name for name, state in states.items() if state is not State.MAINTENANCE}
    assert bool(ruling.takes) == bool(able)
    assert ruling.takes <= ruling.keeps <= able


@given(farms)
def test_new_sources_go_to_the_best_that_there_is(states: dict[str, State]) -> None:
    ruling = rule(states)
    assert len({states[name] for name in ruling.takes}) <= 1
    for name in ruling.takes:
        better = TIERS[: TIERS.index(states[name])]
        assert not any(state in better for state in states.values())
        assert ruling.state is states[name]


@given(farms)
def test_sources_are_moved_only_off_nodes_that_are_stale_down_or_in_maintenance(states: dict[str, State]) -> None:
    assert {name for name, state in states.items() if state in KEEPS} <= rule(states).keeps


NEWS = Activation(7, "v7", 1000)


@pytest.mark.parametrize(
    ("cycle", "version", "seen_ns", "farm_ns", "stale"),
    [
        (6, "v6", 1500, 1500, True),
        (6, "v6", 1100, 1100, False),  # the farm flips at this moment
        (6, "v6", 999, 1500, False),  # what it said before the activation shows nothing
        (7, "v7", 1500, 1500, False),
        (8, "v8", 1500, 1500, False),  # it is ahead: the data server has not rolled over yet
        (5, "v7", 1500, 1500, False),  # the farm went back to what it has
        (None, None, 1500, 1500, True),  # everybody else has it by now
        (None, None, 1050, 1050, False),
    ],
)
def test_a_node_is_stale_only_when_it_is_known_to_have_missed_an_activation(
    cycle: int | None, version: str | None, seen_ns: int, farm_ns: int, stale: bool
) -> None:
    assert missed(NEWS, cycle, version, seen_ns, farm_ns, grace_ns=100) is stale


@given(st.integers(0, 10), st.integers(0, 3000), st.integers(0, 100))
def test_while_a_farm_flips_nobody_is_stale(cycle: int, seen_ns: int, since_ns: int) -> None:
    assert not missed(NEWS, cycle, f"v{cycle}", seen_ns, NEWS.at_ns + since_ns, grace_ns=100)
