from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farmsyncd.core.affinity import Affinity, Stay, shown, source_of

LIFE = 100


def _node(affinity: Affinity, source: bytes, now_ns: int) -> str | None:
    stay = affinity.find(source, now_ns)
    return None if stay is None else stay.node


def test_an_ipv4_address_is_a_source_and_so_is_an_ipv6_network() -> None:
    assert source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1")
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::2")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")


@pytest.mark.parametrize(
    "host", ["example", "10.0.0", "10.0.0.256", "10.0.0.-1", "10.0.0.", "1.2.3.4.5", "", "\u0661.2.3.4"]
)
def test_what_is_no_address_is_no_source(host: str) -> None:
    with pytest.raises(ValueError):
        source_of(host)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32), st.integers(0, 128))
def test_addresses_of_one_network_are_one_source_and_others_are_not(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
    prefix4: int,
    prefix6: int,
) -> None:
    def network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> object:
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return ipaddress.ip_network((address, prefix4 if address.version == 4 else prefix6), strict=False)

    same = source_of(str(one), prefix4, prefix6) == source_of(str(other), prefix4, prefix6)
    assert same == (network(one) == network(other))
    assert shown(source_of(str(one), prefix4, prefix6), prefix4, prefix6).partition("/")[0] in str(network(one))


def test_sources_are_shown_as_what_they_stand_for() -> None:
    assert shown(source_of("10.1.2.3")) == "10.1.2.3"
    assert shown(source_of("10.1.2.3", 24), 24) == "10.1.2.0/24"
    assert shown(source_of("2001:db8::7")) == "2001:db8::/64"
    assert shown(b"?") == "-"


def test_claim_s2_02_a_source_has_one_node_while_it_comes_back_in_time() -> None:
    affinity = Affinity(10, LIFE)
    for now_ns in (0, 99, 198):
        assert _node(affinity, b"s", now_ns) in {None, "a"}
        affinity.release(affinity.hold(b"s", "a", now_ns), now_ns)
    assert _node(affinity, b"s", 297) == "a"
    assert _node(affinity, b"s", 298) is None
    assert len(affinity) == 0


def test_an_open_connection_keeps_its_source_and_the_end_counts() -> None:
    affinity = Affinity(10, LIFE)
    stay = affinity.hold(b"s", "a", 0)
    assert _node(affinity, b"s", 10 * LIFE) == "a"
    affinity.release(stay, 10 * LIFE)
    assert _node(affinity, b"s", 11 * LIFE - 1) == "a"
    assert _node(affinity, b"s", 11 * LIFE) is None


def test_after_a_quiet_night_nobody_waits_until_all_are_forgotten() -> None:
    affinity = Affinity(1000, LIFE)
    for number in range(1000):
        affinity.release(affinity.hold(b"%d" % number, "a", number // 100), number // 100)
    assert _node(affinity, b"999", 2 * LIFE) is None, "whether it is out of the table yet or not"
    assert len(affinity) > 900
    finds = 0
    while len(affinity):
        affinity.find(b"new", 2 * LIFE)
        finds += 1
    assert 10 < finds < 100


def test_the_least_recently_used_is_forgotten_first() -> None:
    affinity = Affinity(2, LIFE)
    for source in (b"1", b"2", b"1", b"3"):
        affinity.release(affinity.hold(source, "a", 0), 0)
    assert [_node(affinity, source, 0) for source in (b"1", b"2", b"3")] == ["a", None, "a"]
    assert affinity.evicted == 1


def test_a_flood_of_sources_forgets_those_first_that_have_no_connection_open() -> None:
    affinity = Affinity(100, LIFE)
    shoppers = [affinity.hold(b"shopper %d" % number, "a", 0) for number in range(5)]
    for number in range(10_000):
        affinity.release(affinity.hold(b"flood %d" % number, "b", number // 1000), number // 1000)
        assert len(affinity) <= 100
    assert {_node(affinity, stay.source, 10) for stay in shoppers} == {"a"}
    assert (affinity.sources_of("a"), affinity.sources_of("b")) == (5, 95)


def test_a_table_full_of_open_connections_is_bounded_all_the_same() -> None:
    affinity = Affinity(20, LIFE)
    stays = [affinity.hold(b"%d" % number, "a", number) for number in range(50)]
    assert len(affinity) == 20
    assert _node(affinity, b"49", 50) == "a", "who has just come is not who is forgotten"
    for stay in stays:
        affinity.release(stay, 50)
    one = Affinity(1, LIFE)
    for number in range(3):
        one.hold(b"%d" % number, "a", 0)
        assert _node(one, b"%d" % number, 0) == "a"


def test_a_source_that_moved_is_not_moved_back_by_the_end_of_an_older_connection() -> None:
    affinity = Affinity(2, LIFE)
    older = affinity.hold(b"s", "a", 0, "new")
    newer = affinity.hold(b"s", "b", 50, "moved")
    assert (newer.why, newer.former, newer.since_ns) == ("moved", "a", 50)
    affinity.release(older, 60)
    assert _node(affinity, b"s", 60) == "b"
    affinity.release(newer, 70)
    assert _node(affinity, b"s", 169) == "b"
    assert _node(affinity, b"s", 170) is None


sources = st.sampled_from([b"%d" % number for number in range(8)])
records = st.lists(st.tuples(sources, st.sampled_from("ab"), st.integers(0, 300)))


@given(records, st.integers(1, 6))
def test_a_table_that_was_handed_over_sends_every_source_where_it_went(
    used: list[tuple[bytes, str, int]], size: int
) -> None:
    before, after = Affinity(size, LIFE), Affinity(size, LIFE)
    now_ns = 0
    for source, node, gap in used:
        now_ns += gap // 10
        known = _node(before, source, now_ns)
        before.release(before.hold(source, known or node, now_ns), now_ns)
    taken = after.load(before.dump(), now_ns)
    assert taken == len(after)
    for later in (now_ns, now_ns + LIFE // 2, now_ns + LIFE):
        for source in {source for source, _, _ in used}:
            assert _node(after, source, later) == _node(before, source, later)
    assert list(after.dump()) == list(before.dump())


@given(records, records, st.integers(1, 6))
def test_what_is_known_stays_when_another_table_is_taken_over(
    mine: list[tuple[bytes, str, int]], others: list[tuple[bytes, str, int]], size: int
) -> None:
    affinity = Affinity(size, LIFE)
    now_ns = 200
    for source, node, _ in mine:
        known = affinity.find(source, now_ns)
        affinity.release(affinity.hold(source, known.node if known else node, now_ns), now_ns)
    before = {source: node for source, node, _ in affinity.dump()}
    affinity.load(others, now_ns)
    after = {source: node for source, node, _ in affinity.dump()}
    assert before.items() <= after.items()
    assert len(affinity) <= size
    assert [used_ns for _, _, used_ns in affinity.dump()] == sorted(used_ns for _, _, used_ns in affinity.dump())
    assert sum(affinity.sources_of(node) for node in "ab") == len(affinity)
    assert all(used_ns <= now_ns for _, _, used_ns in affinity.dump())


def test_a_source_with_an_open_connection_is_handed_over_as_used_now() -> None:
    affinity = Affinity(5, LIFE)
    affinity.hold(b"open", "a", 0)
    affinity.release(affinity.hold(b"closed", "a", 0), 0)
    assert sorted(affinity.dump(90)) == [(b"closed", "a", 0), (b"open", "a", 90)]


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

    @rule(source=sources, node=st.sampled_from("ab"))
    def connect(self, source: bytes, node: str) -> None:
        known = _node(self.affinity, source, self.now_ns)
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
                assert _node(self.affinity, source, self.now_ns) == self.nodes[source]

    @invariant()
    def no_more_than_so_many_are_kept_and_they_are_counted(self) -> None:
        assert len(self.affinity) <= self.capacity
        assert sum(self.affinity.sources_of(node) for node in "ab") == len(self.affinity)

    @invariant()
    def they_are_in_the_order_of_their_use(self) -> None:
        used = [used_ns for _, _, used_ns in self.affinity.dump()]
        assert used == sorted(used)


TestRememberingSources = RememberingSources.TestCase
