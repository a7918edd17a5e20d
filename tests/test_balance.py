from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.balance import Candidate, least_connections

candidates = st.lists(
    st.builds(Candidate, st.integers(0, 9).map("n{}".format), st.integers(0, 5), st.booleans()),
    unique_by=lambda node: node.name,
)
uniform = st.floats(0, 1, exclude_max=True)


@given(candidates, uniform)
def test_claim_s2_01_the_available_node_with_the_least_connections_is_chosen(
    nodes: list[Candidate], chance: float
) -> None:
    chosen = least_connections(nodes, lambda: chance)
    if not nodes:
        assert chosen is None
        return
    willing = [node for node in nodes if node.available] or nodes
    assert chosen in {node.name for node in willing if node.connections == min(node.connections for node in willing)}


def test_ties_go_to_each_of_them() -> None:
    nodes = [Candidate("a", 1), Candidate("b", 1), Candidate("busy", 2), Candidate("gone", 0, available=False)]
    chances = iter([0.0, 0.49, 0.5, 0.99])
    assert [least_connections(nodes, lambda: next(chances)) for _ in range(4)] == list("aabb")


def test_a_farm_all_of_whose_checks_fail_is_served_as_if_all_were_up() -> None:
    nodes = [Candidate("a", 1, available=False), Candidate("b", 0, available=False)]
    assert least_connections(nodes, lambda: 0.0) == "b"
