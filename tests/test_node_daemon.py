"""Real nodes in bad times: the data server gone, the node killed, wrong options, hooks that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.eventually import eventually
from tests.farm import Farm, FarmNode

ONE, TWO = {"prices.json": b"1"}, {"prices.json": b"2"}


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    return Farm(daemons, tmp_path)


def armed_or_flipped(node: FarmNode, version: str, cycle: int) -> bool:
    """Whether readers on the node's machine know when ``version`` becomes active by this cycle, or it has."""
    pointer = node.pointer()
    known = (pointer.active_cycle, pointer.next_cycle) if pointer is not None else ()
    return cycle in known and pointer is not None and version in (pointer.next_version, pointer.active_version)


def test_a_node_that_knows_the_time_flips_although_the_data_server_was_killed_and_reports_later(farm: Farm) -> None:
    node = farm.node("web-1", "--follow", "500ms")
    farm.settled(farm.publish(ONE))
    two = farm.stage(TWO)
    assert farm.publish(TWO, "--in", "4") == two
    eventually(lambda: armed_or_flipped(node, two, 3))
    farm.data.kill()
    eventually(lambda: node.serves(two), what="the node flips by itself")
    assert node.get("/shop/prices.json").body == b"2"
    farm.restart_data()
    report = farm.whole_report(two)
    assert (report["cycle"], [one["name"] for one in report["nodes"]]) == (3, ["web-1"])
    [flip] = report["nodes"]
    assert flip["activated_at_ns"] + flip["error_bound_ns"] >= report["activates_at_ns"]


def test_a_node_that_was_killed_and_started_after_the_time_without_a_data_server_serves_the_right_version(
    farm: Farm,
) -> None:
    node = farm.node("web-1")
    farm.settled(farm.publish(ONE))
    two = farm.stage(TWO)
    assert farm.publish(TWO, "--in", "3") == two
    eventually(lambda: armed_or_flipped(node, two, 3))
    farm.data.kill()
    node.daemon.kill()
    node.daemon.start().ready()
    eventually(lambda: node.serves(two), what="the node flips after its restart")


def test_hooks_are_told_of_a_flip_and_one_that_fails_is_reported_and_changes_nothing(
    farm: Farm, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    script = (
        "import json, os, pathlib, sys; "
        f"pathlib.Path({str(told)!r}).write_text(json.dumps(dict(os.environ))); "
        "sys.exit('it went wrong')"
    )
    config = tmp_path / "hooked.toml"
    config.write_text(f"[node.hooks]\ncommand = {json.dumps([sys.executable, '-c', script])}\n")
    node = farm.node("web-1", "--config", str(config))
    farm.settled(farm.publish(ONE))
    two = farm.publish(TWO)
    farm.settled(two)
    report = farm.whole_report(two)
    [flip] = report["nodes"]
    assert "ended with status 1: it went wrong" in flip["detail"]
    said = json.loads(told.read_text())
    assert {key: said[key] for key in ("FARMSYNC_DATASET", "FARMSYNC_VERSION", "FARMSYNC_CYCLE")} == {
        "FARMSYNC_DATASET": "shop",
        "FARMSYNC_VERSION": two,
        "FARMSYNC_CYCLE": "2",
    }
    assert (Path(said["FARMSYNC_PATH"]) / "prices.json").read_bytes() == b"2"
    assert node.serves(two)


def test_a_dataset_that_cannot_be_followed_is_told_and_is_followed_once_that_is_put_right(
    farm: Farm, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "web-1" / "state" / "shop"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("a file where a directory belongs")
    node = farm.node("web-1")
    one = farm.publish(ONE)

    def told() -> bool:
        rows = json.loads(farm.run("status", "--json"))["nodes"]
        return [(row["dataset"], row["state"], str(in_the_way) in row["detail"]) for row in rows] == [
            ("shop", "failed", True)
        ]

    eventually(told, what="the data server knows why")
    assert (node.shop()["state"], node.get("/ready").code) == ("failed", 503)
    assert str(in_the_way) in node.shop()["detail"]
    assert 'farmsync_node_state{dataset="shop",state="failed"} 1.0' in node.get("/metrics").body.decode()
    assert node.daemon.log.count("shop cannot be followed") == 1
    in_the_way.unlink()
    eventually(lambda: node.serves(one, state="ready"), what="the node follows it after all")
    assert node.get("/ready").code == 200


def test_a_dataset_that_the_data_server_does_not_have_is_told(farm: Farm) -> None:
    node = farm.node("web-1", "--dataset", "shop", "--dataset", "shpo")
    one = farm.publish(ONE)
    farm.settled(one)

    def rows() -> dict[str, str]:
        return {row["dataset"]: row["detail"] for row in json.loads(farm.run("status", "--json"))["nodes"]}

    doubt = "the data server has no such dataset: is it misspelt, or not published yet?"
    eventually(lambda: rows() == {"shop": "", "shpo": doubt})
    assert node.status()["datasets"]["shpo"]["detail"] == doubt
    assert doubt in farm.run("status")


def test_a_node_name_that_is_used_twice_is_told_to_the_second_and_does_not_disturb_the_first(farm: Farm) -> None:
    first = farm.node("web-1")
    farm.settled(farm.publish(ONE))
    second = farm._daemons.start(
        "farmsync-node", "--data", farm.address, "--name", "web-1", "--http", "tcp:0:interface=127.0.0.1", name="twin"
    ).ready()
    eventually(lambda: "expected a node name of its own, and web-1 is connected from" in second.log)
    farm.settled(farm.publish(TWO))
    assert first.status()["connected"]


def test_wrong_options_are_one_clear_line_each(daemons: Daemons) -> None:
    node = daemons.start(
        "farmsync-node", "--data", "tcp:nowhere", "--name", "web 1", "--skew", "fast", "--follow", "5",
        "--serve", "here", "--http", "8080", "--keep", "0",
    )  # fmt: skip
    assert node.wait() != 0
    lines = node.log.strip().splitlines()
    for option in ("data", "name", "skew", "follow", "serve", "http", "keep"):
        [line] = [line for line in lines if f"--{option}: " in line]
        assert "expected" in line
        assert "found" in line
    assert "Traceback" not in node.log


def test_a_state_directory_that_another_node_uses_is_refused_in_one_line(daemons: Daemons) -> None:
    first = daemons.start(
        "farmsync-node", "--data", "tcp:127.0.0.1:1", "--name", "web-1", "--http", "tcp:0:interface=127.0.0.1"
    ).ready()
    second = daemons.start(
        "farmsync-node", "--data", "tcp:127.0.0.1:1", "--name", "web-2", "--state", str(first.state), state=False
    )
    assert second.wait() == 78
    assert f"expected the state directory {first.state} to be free" in second.log
    assert "Traceback" not in second.log
    first.stop()
    assert "Server Shut Down" in first.log


def test_a_node_ends_in_good_order_and_leaves_no_address_behind(farm: Farm) -> None:
    node = farm.node("web-1")
    farm.settled(farm.publish(ONE))
    node.daemon.stop()
    assert "Server Shut Down" in node.daemon.log
    assert node.daemon.addresses == {}
    assert "Traceback" not in node.daemon.log
    assert "Unhandled" not in node.daemon.log
