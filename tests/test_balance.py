from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.balance import FLOOR, PER_FAILURE, Penalty, least_connections, load, ramped

SECOND = 10**9


@attrs.frozen
class Candidate:
    name: str
    connections: int
    weight: float = 1.0
    doubted: bool = False


candidates = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 9).map("n{}".format),
        st.integers(0, 5),
        st.sampled_from([0.1, 0.5, 1.0, 3.0]),
        st.booleans(),
    ),
    unique_by=lambda node: node.name,
)
uniform = st.floats(0, 1, exclude_max=True)


@given(candidates, uniform)
def test_claim_s2_01_the_node_with_the_least_connections_for_its_weight_is_chosen(
    nodes: list[Candidate], chance: float
) -> None:
    chosen = least_connections(nodes, lambda: chance)
    if not nodes:
        assert chosen is None
        return
    least = [node for node in nodes if load(node) == min(map(load, nodes))]
    idle = [node for node in nodes if node.connections == 0 and not node.doubted]
    assert chosen in (idle or least if any(node.connections == 0 for node in least) else least)


@given(st.lists(st.integers(0, 9), min_size=1), uniform)
def test_claim_s2_01_among_equals_it_is_the_one_with_the_least_connections(counts: list[int], chance: float) -> None:
    chosen = least_connections([Candidate(str(number), count) for number, count in enumerate(counts)], lambda: chance)
    assert chosen is not None
    assert chosen.connections == min(counts)


def test_ties_go_to_each_of_them() -> None:
    nodes = [Candidate("a", 1), Candidate("b", 1), Candidate("busy", 2)]
    chances = iter([0.0, 0.49, 0.5, 0.99])
    chosen = [least_connections(nodes, lambda: next(chances)) for _ in range(4)]
    assert [node.name for node in chosen if node] == list("aabb")


def test_while_a_farm_is_idle_new_sources_spread_as_weights_do() -> None:
    nodes = [Candidate("light", 0), Candidate("ramping", 0, 0.5), Candidate("heavy", 0, 2.5), Candidate("busy", 1, 1.5)]
    chosen = [least_connections(nodes, lambda chance=number / 400: chance) for number in range(400)]  # type: ignore[misc]
    counts = Counter(node.name for node in chosen if node)
    assert counts == {"light": 100, "ramping": 50, "heavy": 250}
    ramping, busy = Candidate("ramping", 0, 0.1), Candidate("busy", 3)
    assert least_connections([ramping, busy], lambda: 0.0) == busy
    doubted, idle = Candidate("doubted", 0, 5.0, doubted=True), Candidate("idle", 0)
    assert {least_connections([doubted, idle], lambda: chance) for chance in (0.0, 0.99)} == {idle}  # noqa: B023
    assert least_connections([doubted, busy], lambda: 0.0) == doubted


@given(st.integers(1, 8), st.integers(1, 8))
def test_connections_spread_as_weights_do(first: int, second: int) -> None:
    counts = {"a": 0, "b": 0}
    weights = {"a": float(first), "b": float(second)}
    for _ in range(10 * (first + second)):
        chosen = least_connections([Candidate(name, counts[name], weights[name]) for name in counts], lambda: 0.0)
        assert chosen is not None
        counts[chosen.name] += 1
    assert counts["a"] == 10 * first
    assert counts["b"] == 10 * second


@given(st.integers(-5, 200), st.integers(-5, 200))
def test_a_ramp_only_rises_from_its_floor_to_the_whole(one: int, other: int) -> None:
    early, late = sorted([one, other])
    assert FLOOR <= ramped(early, 100) <= ramped(late, 100) <= 1.0
    assert ramped(0, 100) == FLOOR
    assert ramped(100, 100) == 1.0
    assert ramped(0, 0) == 1.0


@given(st.lists(st.integers(0, 20 * SECOND), max_size=40))
def test_a_penalty_grows_with_failures_fades_with_time_and_never_makes_a_weight_zero(gaps: list[int]) -> None:
    penalty = Penalty(5 * SECOND)
    now_ns = 0
    for gap in gaps:
        now_ns += gap
        before = penalty.factor(now_ns)
        penalty.add(now_ns)
        assert 0.0 < penalty.factor(now_ns) <= before <= 1.0
    assert penalty.factor(now_ns) <= penalty.factor(now_ns + SECOND) <= 1.0
    assert penalty.factor(now_ns + 300 * SECOND) == 1.0, "an idle node would never be chosen again"


def test_one_failure_divides_the_weight_and_half_of_it_is_forgiven_in_time() -> None:
    penalty = Penalty(5 * SECOND)
    penalty.add(0)
    assert penalty.factor(0) == 1 / PER_FAILURE
    assert penalty.failures(5 * SECOND) == 0.5
    penalty.clear()
    assert penalty.factor(0) == 1.0


def test_a_node_that_fails_fast_does_not_swallow_the_farm() -> None:
    """Nine slow nodes fill up, one is always empty since it refuses: it is asked again a few times, not each time."""
    penalty, failures = Penalty(5 * SECOND), 0
    for number in range(9 * 200):  # 200 new sources a second
        now_ns = number * SECOND // 200
        bad = Candidate("bad", 0, penalty.factor(now_ns), doubted=penalty.factor(now_ns) < 1)
        chosen = least_connections([Candidate("good", number // 9), bad], lambda: 0.0)
        if chosen is bad:
            penalty.add(now_ns)
            failures += 1
    assert 1 <= failures <= 20
