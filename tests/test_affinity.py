from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.affinity import Affinity, Stay, source_of

LIFE = 100


def test_an_ipv4_address_is_a_source_and_so_is_an_ipv6_network() -> None:
    assert source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1")
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::2")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
    with pytest.raises(ValueError, match="example"):
        source_of("example")


def test_claim_s2_02_a_source_has_one_node_while_it_comes_back_in_time() -> None:
    affinity = Affinity(10, LIFE)
    for now_ns in (0, 99, 198):
        assert affinity.find(b"s", now_ns) in {None, "a"}
        affinity.release(affinity.hold(b"s", "a", now_ns), now_ns)
    assert affinity.find(b"s", 297) == "a"
    assert affinity.find(b"s", 298) is None
    assert len(affinity) == 0


def test_an_open_connection_keeps_its_source_and_the_end_counts() -> None:
    affinity = Affinity(10, LIFE)
    stay = affinity.hold(b"s", "a", 0)
    assert affinity.find(b"s", 10 * LIFE) == "a"
    affinity.release(stay, 10 * LIFE)
    assert affinity.find(b"s", 11 * LIFE - 1) == "a"
    assert affinity.find(b"s", 11 * LIFE) is None


def test_the_least_recently_used_is_forgotten_first() -> None:
    affinity = Affinity(2, LIFE)
    for source in (b"1", b"2", b"1", b"3"):
        affinity.release(affinity.hold(source, "a", 0), 0)
    assert [affinity.find(source, 0) for source in (b"1", b"2", b"3")] == ["a", None, "a"]


def test_a_source_that_moved_is_not_moved_back_by_the_end_of_an_older_connection() -> None:
    affinity = Affinity(2, LIFE)
    older = affinity.hold(b"s", "a", 0)
    newer = affinity.hold(b"s", "b", 50)
    affinity.release(older, 60)
    assert affinity.find(b"s", 60) == "b"
    affinity.release(newer, 70)
    assert affinity.find(b"s", 169) == "b"
    assert affinity.find(b"s", 170) is None


class RememberingSources(RuleBasedStateMachine):
    """Against a plain dictionary that never forgets too much."""

    capacity = 4

    def __init__(self) -> None:
        super().__init__()
        self.affinity = Affinity(self.capacity, LIFE)
        self.now_ns = 0
        self.open: list[Stay] = []
        self.nodes: dict[bytes, str] = {}
        self.used: list[bytes] = []  # the most recent last
        self.used_ns: dict[bytes, int] = {}

    def _use(self, source: bytes) -> None:
        if source in self.used:
            self.used.remove(source)
        self.used.append(source)
        self.used_ns[source] = self.now_ns

    @rule(source=st.sampled_from([b"%d" % number for number in range(6)]), node=st.sampled_from("ab"))
    def connect(self, source: bytes, node: str) -> None:
        known = self.affinity.find(source, self.now_ns)
        assert known in {None, self.nodes.get(source)}
        node = known or node
        self.nodes[source] = node
        self.open.append(self.affinity.hold(source, node, self.now_ns))
        self._use(source)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        stay = data.draw(st.sampled_from(self.open))
        self.open.remove(stay)
        self.affinity.release(stay, self.now_ns)

    @rule(elapsed=st.integers(1, LIFE))
    def wait(self, elapsed: int) -> None:
        self.now_ns += elapsed

    @rule()
    def the_latest_is_remembered(self) -> None:
        for source in self.used[-1:]:
            if self.now_ns - self.used_ns[source] < LIFE:
                assert self.affinity.find(source, self.now_ns) == self.nodes[source]

    @invariant()
    def no_more_than_so_many_are_kept(self) -> None:
        assert len(self.affinity) <= self.capacity


TestRememberingSources = RememberingSources.TestCase
