from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.health import Health, Patience

CHECKED = Patience(rise=2, fall=3, retry_ns=100, checks=True)
UNCHECKED = Patience(rise=2, fall=3, retry_ns=100, checks=False)


def test_so_many_bad_checks_take_a_node_down_and_so_many_good_ones_bring_it_back() -> None:
    health = Health(CHECKED)
    assert [health.checked(False, "refused") for _ in range(4)] == [False, False, True, False]
    assert (health.up, health.reason) == (False, "refused")
    assert [health.checked(True), health.checked(False), health.checked(True), health.checked(True)] == [
        *(False, False, False, True)
    ]
    assert health.up


def test_a_flapping_node_changes_less_than_its_checks() -> None:
    health = Health(CHECKED)
    assert not any(health.checked(number % 2 == 0) for number in range(100))
    assert health.up


def test_clients_connections_take_a_node_down_between_two_checks() -> None:
    health = Health(CHECKED)
    assert [health.refused("timed out", 0) for _ in range(3)] == [False, False, True]
    assert not health.connected(), "that it takes a connection does not show that it is well"
    assert not health.retry(10**9)
    assert not health.up
    assert [health.checked(True), health.checked(True)] == [False, True]
    assert health.refused_in_row == 0


def test_a_connection_that_is_taken_breaks_a_row_of_failures() -> None:
    health = Health(CHECKED)
    for _ in range(10):
        assert not health.refused("timed out", 0)
        assert not health.refused("timed out", 0)
        assert not health.connected()


def test_without_checks_a_node_is_tried_again_after_a_while_and_one_failure_is_enough() -> None:
    health = Health(UNCHECKED)
    assert [health.refused("refused", 0) for _ in range(3)] == [False, False, True]
    assert not health.retry(99)
    assert health.retry(100)
    assert health.up
    assert health.refused("refused", 110)
    assert not health.retry(200)
    assert health.retry(210)
    assert not health.connected()
    assert not health.refused("refused", 220), "it has shown that it is well"


def test_without_checks_one_connection_brings_a_node_back() -> None:
    health = Health(UNCHECKED)
    for _ in range(5):
        health.refused("refused", 0)
    assert health.connected()
    assert health.up
    assert health.retry_at_ns is None


@given(
    st.lists(st.sampled_from(["good", "bad", "refused", "connected", "retry"])), st.sampled_from([CHECKED, UNCHECKED])
)
def test_each_change_is_told_once(news: list[str], patience: Patience) -> None:
    health, now_ns = Health(patience), 0
    for one in news:
        now_ns += 40
        before = health.up
        match one:
            case "good" | "bad":
                changed = health.checked(one == "good", "bad")
            case "refused":
                changed = health.refused("refused", now_ns)
            case "connected":
                changed = health.connected()
            case _:
                changed = health.retry(now_ns)
        assert changed == (health.up != before)
        assert health.up or health.reason or one
