"""Nodes that are added or come back, and what they serve: claims S1.12, S1.13 and S1.14, on real daemons."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.eventually import eventually
from tests.farm import Farm

ONE = {"index.html": b"<h1>one</h1>", "a b/ä.txt": b"text"}
TWO = {**ONE, "index.html": b"<h1>two</h1>"}


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    return Farm(daemons, tmp_path)


def test_claim_s1_12_a_node_that_is_added_copies_the_active_cache_and_learns_what_comes_next(farm: Farm) -> None:
    first = farm.node("first")
    one = farm.publish(ONE)
    farm.settled(one)
    two = farm.stage(TWO)
    late = farm.node("late")
    shop = eventually(lambda: (found := late.shop())["state"] == "staged" and found)
    assert (shop["active"]["version"], shop["next"]["version"]) == (one, two)
    assert late.get("/shop/").body == ONE["index.html"]
    assert farm.publish(TWO) == two
    farm.settled(two)
    assert [node.get("/shop/").body for node in (first, late)] == [TWO["index.html"]] * 2


def test_claim_s1_13_a_node_that_is_restarted_copies_the_active_cache(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    node.daemon.kill()
    two = farm.publish(TWO)
    node.daemon.start().ready()
    eventually(lambda: node.serves(two, state="ready"), what="it has caught up with what it missed")
    node.daemon.stop()
    _wipe(node.daemon.state)
    node.daemon.start().ready()
    eventually(lambda: node.serves(two, state="ready"), what="it has copied everything anew")


def test_claim_s1_13_a_restarted_node_whose_disk_is_right_serves_without_a_data_server(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    node.daemon.kill()
    farm.data.kill()
    node.daemon.start().ready()
    eventually(lambda: node.get("/ready").code == 200)
    answer = node.get("/shop/index.html")
    assert (answer.code, answer.version, answer.body) == (200, one, ONE["index.html"])


def test_claim_s1_13_a_tree_that_was_damaged_is_found_at_start_and_copied_again(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    node.daemon.stop()
    victim = node.cache / "active" / "index.html"
    victim.chmod(0o644)
    victim.write_bytes(b"<h1>0ne</h1>, and longer")
    victim.chmod(0o444)
    node.daemon.start().ready()
    eventually(lambda: node.serves(one, state="ready"))
    assert node.get("/shop/index.html").body == ONE["index.html"]
    assert (node.cache / "active" / "index.html").read_bytes() == ONE["index.html"]
    assert "is damaged and will not be served: index.html" in node.daemon.log


def test_claim_s1_14_nodes_serve_the_active_data_over_http(farm: Farm) -> None:
    node = farm.node("web-1")
    assert node.get("/ready").code == 503
    one = farm.publish(ONE)
    farm.settled(one)
    assert node.get("/ready").code == 200
    for path, name in (("/shop/index.html", "index.html"), ("/shop/a%20b/%C3%A4.txt", "a b/ä.txt")):
        answer = node.get(path)
        assert (answer.code, answer.version, answer.body) == (200, one, ONE[name])
    two = farm.publish(TWO)
    farm.settled(two)
    assert node.get("/shop/").body == TWO["index.html"]
    assert node.get(f"/shop@{one}/").body == ONE["index.html"]
    assert b'farmsync_node_active_cycle{dataset="shop"} 2.0' in node.get("/metrics").body


def _wipe(directory: Path) -> None:
    """Remove a node's state; its trees are read-only."""
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(directory)
