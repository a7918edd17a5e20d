from __future__ import annotations

from typing import cast

import pytest

from farmsyncd.core.eligibility import Order, State
from farmsyncd.lb.config import NodeAddress, NodeConfig
from farmsyncd.lb.farm import Sighting
from farmsyncd.lb.web import Figures
from tests.lb_scene import SECOND, Scene, address, names, sighted

RAMP = 30 * SECOND


def test_what_the_data_server_says_becomes_the_farm() -> None:
    scene = Scene("a")
    scene.dispatcher.observe(sighted("bc"))
    assert list(scene.farm.nodes) == ["a", "b", "c"]
    seats = [scene.come(b"%d" % number) for number in range(3)]
    assert names(*seats) == "abc"
    scene.dispatcher.observe(sighted("c") | sighted("b", seen=False))
    assert scene.states() == {"a": State.READY, "b": State.DRAINING, "c": State.READY}
    assert scene.visit(b"1") == "b", "a node that the data server does not see may well serve"
    assert "b" not in [scene.visit(b"new %d" % number) for number in range(4)]
    scene.dispatcher.observe(sighted("bc"))
    assert scene.states()["b"] is State.READY
    scene.dispatcher.observe(sighted("c"))
    assert list(scene.farm.nodes) == ["a", "c"]
    assert scene.visit(b"1") in {"a", "c"}
    for seat in seats:
        scene.dispatcher.leave(seat)  # also of the node that is no part of the farm any more


def test_a_node_that_moves_is_followed_and_a_fixed_one_is_not() -> None:
    moved = NodeAddress("b", "10.0.0.9", 1)
    scene = Scene("a")
    scene.dispatcher.observe(sighted("b"))
    scene.fail("b", 3, others="a")
    assert scene.states()["b"] is State.DOWN
    scene.dispatcher.observe({"a": Sighting(NodeAddress("a", "10.0.0.9", 1)), "b": Sighting(moved)})
    assert [node.address for node in scene.farm.nodes.values()] == [address("a"), moved]
    assert scene.states()["b"] is State.READY, "what failed was at another address"


def test_a_node_that_was_not_seen_for_long_is_not_taken_into_the_farm() -> None:
    scene = Scene()
    scene.dispatcher.observe(sighted("a", seen=False, recent=False) | sighted("b", seen=False))
    assert scene.states() == {"b": State.DRAINING}
    scene.dispatcher.observe(sighted("b", seen=False, recent=False))
    assert scene.states() == {"b": State.DRAINING}, "who is in stays in, as long as the data server knows it"


def test_a_data_server_that_is_just_back_takes_nobody_away() -> None:
    scene = Scene()
    scene.dispatcher.observe(sighted("ab"))
    home = scene.visit(b"s")
    scene.dispatcher.observe(sighted("b", seen=False) | sighted("c"), settled=False)
    assert scene.states() == {"a": State.READY, "b": State.READY, "c": State.READY}
    assert scene.visit(b"s") == home
    scene.dispatcher.observe(sighted("c"), settled=True)
    assert scene.states() == {"c": State.READY}
    assert scene.visit(b"s") == "c"


def test_a_stale_nodes_sources_move_and_do_not_come_back() -> None:
    scene = Scene()
    scene.dispatcher.observe(sighted("ab"))
    assert scene.visit(b"s") == "a"
    scene.dispatcher.observe(sighted("b") | sighted("a", missed="it missed cycle 2 of shop"))
    assert scene.states()["a"] is State.STALE
    assert scene.node("a").reason == "it missed cycle 2 of shop"
    assert scene.visit(b"s") == "b"
    scene.dispatcher.observe(sighted("ab"))
    assert scene.visit(b"s") == "b"


def test_when_all_are_stale_nobody_is_moved() -> None:
    scene = Scene()
    scene.dispatcher.observe(sighted("ab"))
    homes = {source: scene.visit(source) for source in (b"1", b"2", b"3")}
    scene.dispatcher.observe(sighted("ab", missed="cycle 2 of shop"))
    assert {source: scene.visit(source) for source in homes} == homes
    assert scene.farm.serving is State.STALE
    assert scene.seat(b"new") is not None


def test_a_fixed_node_is_not_stale_any_more_once_the_data_server_does_not_know_it() -> None:
    scene = Scene("ab")
    scene.dispatcher.observe(sighted("a", missed="cycle 2 of shop"))
    assert scene.states()["a"] is State.STALE
    scene.dispatcher.observe({})
    assert scene.states()["a"] is State.READY


def test_the_operator_drains_takes_out_and_brings_back() -> None:
    scene = Scene("ab")
    assert scene.visit(b"s") == "a"
    scene.dispatcher.command("a", Order.DRAIN)
    assert scene.states()["a"] is State.DRAINING
    assert scene.node("a").reason == "the operator said so"
    assert scene.visit(b"s") == "a"
    assert scene.visit(b"t") == "b"
    scene.dispatcher.command("a", Order.MAINT)
    assert scene.visit(b"s") == "b"
    scene.dispatcher.command("a", Order.READY)
    assert scene.states()["a"] is State.READY
    assert scene.visit(b"s") == "b"


def test_an_order_outlives_a_nodes_absence() -> None:
    scene = Scene()
    scene.dispatcher.observe(sighted("ab"))
    scene.dispatcher.command("a", Order.MAINT)
    scene.dispatcher.command("c", Order.DRAIN)
    assert scene.farm.orders == {"a": Order.MAINT, "c": Order.DRAIN}
    scene.dispatcher.observe(sighted("b"))
    scene.dispatcher.observe(sighted("abc"))
    assert scene.states() == {"a": State.MAINTENANCE, "b": State.READY, "c": State.DRAINING}
    scene.dispatcher.command("a", Order.READY)
    assert scene.farm.orders == {"c": Order.DRAIN}


def test_nothing_is_sent_to_a_node_in_maintenance_whatever_happens() -> None:
    scene = Scene("a")
    scene.dispatcher.command("a", Order.MAINT)
    assert scene.seat(b"s") is None
    assert scene.farm.serving is None


def test_checks_take_nodes_down_and_bring_them_back() -> None:
    scene = Scene("ab", check="tcp")
    homes = {source: scene.visit(source) for source in (b"1", b"2")}
    for _ in range(3):
        scene.dispatcher.checked("a", False, "a check was refused")
    assert scene.states()["a"] is State.DOWN
    assert scene.node("a").reason == "a check was refused"
    assert {scene.visit(source) for source in homes} == {"b"}
    for _ in range(2):
        scene.dispatcher.checked("a", True)
    assert scene.states()["a"] is State.READY
    scene.dispatcher.checked("nobody", False)


def test_a_farm_all_of_whose_checks_fail_is_served_as_if_all_were_up() -> None:
    scene = Scene("abc", check="tcp", random=iter([0.0, 0.5, 0.9] * 9).__next__)
    homes = {source: scene.visit(source) for source in (b"1", b"2", b"3")}
    for _ in range(3):
        for name in "abc":
            scene.dispatcher.checked(name, False, "no")
    assert set(scene.states().values()) == {State.DOWN}
    assert {source: scene.visit(source) for source in homes} == homes
    assert len({scene.visit(b"new %d" % number) for number in range(9)}) > 1


def test_a_node_that_joins_or_is_back_ramps_up_and_at_the_start_nobody_does() -> None:
    scene = Scene(ramp_up_ns=RAMP, check="tcp")
    scene.dispatcher.observe(sighted("ab"))
    assert [scene.node(name).weight for name in "ab"] == [1.0, 1.0]
    scene.dispatcher.observe(sighted("abc"))
    assert scene.node("c").weight == pytest.approx(0.1)
    scene.wait(15)
    assert scene.node("c").weight == pytest.approx(0.55, abs=0.01)
    scene.wait(16)
    assert scene.node("c").weight == 1.0
    for good in (False, False, False, True, True):
        scene.dispatcher.checked("a", good, "no")
    assert scene.node("a").weight == pytest.approx(0.1)
    scene.wait(31)
    assert scene.node("a").weight == 1.0
    scene.dispatcher.observe(sighted("bc") | sighted("a", seen=False))
    scene.dispatcher.observe(sighted("abc"))
    assert scene.node("a").weight == 1.0, "it kept its sources, and its caches are warm"


def test_a_ramping_node_gets_its_part_and_not_all() -> None:
    scene = Scene("a", ramp_up_ns=RAMP)
    scene.dispatcher.observe({})
    for number in range(100):
        scene.come(b"%d" % number)
    scene.dispatcher.observe(sighted("b"))
    for number in range(100, 120):
        scene.come(b"%d" % number)
    assert 1 <= scene.node("b").connections <= 20 * 0.6


def test_weights_and_limits_are_the_nodes_own() -> None:
    nodes = {"a": NodeConfig(weight=3.0), "b": NodeConfig(max_connections=2)}
    scene = Scene("abc", nodes=nodes, max_connections=50)
    assert [scene.node(name).limit for name in "abc"] == [50, 2, 50]
    for number in range(40):
        scene.come(b"%d" % number)
    assert scene.node("b").connections == 2
    assert 2.5 <= scene.node("a").connections / scene.node("c").connections <= 3.5


def test_a_flapping_node_gets_none_of_its_sources_back() -> None:
    scene = Scene("ab", check="tcp", ramp_up_ns=RAMP)
    homes = [scene.visit(b"%d" % number) for number in range(10)]
    assert set(homes) == {"a"}
    for _ in range(5):
        for good in (False, False, False, True, True):
            scene.dispatcher.checked("a", good, "flapping")
            moved = {scene.visit(b"%d" % number) for number in range(10)}
            if not scene.farm.nodes["a"].health.up:
                assert moved == {"b"}
            scene.wait(1)
    assert {scene.visit(b"%d" % number) for number in range(10)} == {"b"}


def test_the_figures_tell_of_the_farm() -> None:
    scene = Scene("ab")
    figures = Figures(scene.dispatcher, scene.affinity, [], lambda: True, lambda: scene.now_ns)
    scene.come(b"s")
    seat = scene.seat(b"t")
    assert seat is not None
    scene.dispatcher.refused(seat, "connection refused")
    status = figures.status()
    assert (status["ready"], status["sources"], status["data_server"]) == (True, 1, True)
    first, second = cast("list[dict[str, object]]", status["nodes"])
    assert first == {
        "name": "a",
        "address": f"10.0.0.1:{8000 + ord('a')}",
        "state": "ready",
        "reason": "",
        "order": "ready",
        "takes_new": True,
        "connections": 1,
        "limit": None,
        "weight": 1.0,
        "whole_weight": 1.0,
        "sources": 1,
        "connections_total": 1,
        "failures_total": 0,
    }
    assert (second["connections"], second["failures_total"], second["weight"]) == (0, 1, 0.125)
    metrics = figures.metrics().splitlines()
    for line in (
        'farmsync_lb_node_ready{node="a"} 1.0',
        'farmsync_lb_node_state{node="a",state="ready"} 1.0',
        'farmsync_lb_failures_total{node="b"} 1.0',
        "farmsync_lb_waiting 0.0",
        "farmsync_lb_ready 1.0",
    ):
        assert line in metrics


def test_readiness_says_why_not() -> None:
    def readiness(scene: Scene) -> tuple[bool, str]:
        return Figures(scene.dispatcher, scene.affinity, [], None, lambda: scene.now_ns).ready()

    assert readiness(Scene()) == (False, "no node is known yet")
    scene = Scene("ab")
    assert readiness(scene) == (True, "2 of 2 nodes take new sources")
    scene.dispatcher.command("a", Order.DRAIN)
    assert readiness(scene) == (True, "1 of 2 nodes take new sources")
    scene.dispatcher.command("b", Order.MAINT)
    assert readiness(scene) == (*(True, "1 of 2 nodes take new sources, although they are draining: none is ready"),)
    scene.dispatcher.command("a", Order.MAINT)
    assert readiness(scene) == (False, "all 2 nodes are in maintenance")
    down = Scene("a")
    down.fail("a", 3, others="")
    assert readiness(down) == (False, "no node is up; clients are sent to the one that is down, in case it is not")
