"""Wrong clocks, compared and allowed for, and nodes that never talk to each other: claims S1.05 to S1.08."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.daemons import Daemons
from tests.eventually import eventually
from tests.farm import Farm, FarmNode

ONE, TWO = {"prices.json": b"1"}, {"prices.json": b"2"}
S = 1_000_000_000
SKEWS = {"right": "0", "ahead": "86400,300", "behind": "-3600.5,-250"}
SHIFTS_S = {"right": 0.0, "ahead": 86400.0, "behind": -3600.5}


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    farm = Farm(daemons, tmp_path)
    for name, skew in SKEWS.items():
        farm.node(name, skew=skew)
    return farm


def comparison(node: FarmNode) -> tuple[int, int]:
    """The node's offset and its hard bound, once it has compared clocks."""
    eventually(lambda: node.status()["offset_ns"] is not None, what=f"{node.name} has compared clocks")
    status = node.status()
    return status["offset_ns"], status["error_bound_ns"]


def test_claim_s1_05_each_node_compares_its_clock_with_the_data_server_s(farm: Farm) -> None:
    right, right_bound = comparison(farm.nodes[0])
    for node in farm.nodes[1:]:
        offset, bound = comparison(node)
        assert bound > 0
        # The machine has been up for some time, in which the wrong rates have added to the wrong shifts.
        rate = float(SKEWS[node.name].partition(",")[2])
        drifted_s = rate / 1e6 * time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        expected = right - round((SHIFTS_S[node.name] + drifted_s) * S)
        assert abs(offset - expected) < bound + right_bound + S


def test_claim_s1_06_the_activation_time_is_adjusted_by_the_difference(farm: Farm) -> None:
    farm.publish(ONE)
    for node in farm.nodes:
        eventually(lambda node=node: node.shop()["state"] == "ready", what=f"{node.name} serves")  # type: ignore[misc]
    farm.publish(TWO, "--in", "300")
    flips_at = []
    for node in farm.nodes:
        pointer = eventually(lambda node=node: (found := node.pointer()) and found.next_version and found)  # type: ignore[misc]
        assert pointer.flips_at_machine_ns is not None
        flips_at.append(pointer.flips_at_machine_ns)
    bounds = sum(comparison(node)[1] for node in farm.nodes)
    # By clocks that differ by a day, one instant: within the bounds, and what rates can do within five minutes.
    assert max(flips_at) - min(flips_at) < bounds + S


def test_claim_s1_07_clocks_stay_wrong_and_all_nodes_flip_and_none_before_its_time(farm: Farm) -> None:
    one = farm.publish(ONE)
    farm.settled(one)
    before = [comparison(node)[0] for node in farm.nodes]
    two = farm.stage(TWO)
    assert farm.publish(TWO) == two
    farm.settled(two)
    report = farm.whole_report(two)
    assert {node["name"] for node in report["nodes"]} == set(SKEWS)
    for node in report["nodes"]:
        assert node["activated_at_ns"] + node["error_bound_ns"] >= report["activates_at_ns"]
    for node, offset in zip(farm.nodes, before, strict=True):
        assert abs(comparison(node)[0] - offset) < S


def test_claim_s1_08_nodes_talk_to_the_data_server_and_to_nobody_else(farm: Farm) -> None:
    silent = farm.node("silent", http=False)
    one = farm.publish(ONE)
    eventually(lambda: all(node.linked() == one for node in farm.nodes), what="all nodes serve")
    port = int(farm.address.rpartition(":")[2])
    for node in farm.nodes:
        assert node.daemon.process is not None
        connections = psutil.Process(node.daemon.process.pid).net_connections("inet")
        opened = [one for one in connections if one.status in {psutil.CONN_ESTABLISHED, psutil.CONN_SYN_SENT}]
        listening = [one for one in connections if one.status == psutil.CONN_LISTEN]
        assert {one.raddr.port for one in opened} == {port}
        assert len(listening) == (0 if node is silent else 1)
