"""Damage: on the data server's disk, on the way, and on a node's disk. It is found, named, never served, and healed."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from farmsyncd.core.chunks import digest_of
from tests.daemons import Daemons
from tests.eventually import eventually
from tests.farm import Farm, FarmNode
from tests.meddling_relay import MeddlingRelay

ONE = {"prices.json": b'{"tea": 1}', "img/logo.png": random.Random(1).randbytes(600_000)}
TWO = {**ONE, "img/new.png": random.Random(2).randbytes(600_000)}
LOGO = digest_of(ONE["img/logo.png"]).hex()


@pytest.fixture
def farm(daemons: Daemons, tmp_path: Path) -> Farm:
    return Farm(daemons, tmp_path)


def spoil(path: Path, content: bytes) -> None:
    """Turn one bit of ``content`` around where it stands in a file, as a disk might: no time of the file changes."""
    found = path.stat()
    at = path.read_bytes().index(content) + len(content) // 2
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(found.st_mode & 0o777)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def versions(node: FarmNode) -> list[str]:
    """The versions that the node has on its disk and calls complete."""
    directory = node.cache / "versions"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def is_right(node: FarmNode, version: str, files: dict[str, bytes]) -> bool:
    """Whether the node serves ``version``, and each of its files is what was published."""
    if not node.serves(version, state="ready"):
        return False
    for name, content in files.items():
        assert (node.cache / "active" / name).read_bytes() == content
        assert node.get(f"/shop/{name}").body == content
    return True


def behind(relay: MeddlingRelay, farm: Farm, *arguments: str) -> FarmNode:
    """A node that reaches the data server through the relay."""
    farm.address, direct = relay.address, farm.address
    node = farm.node("web-1", *arguments)
    farm.address = direct
    return node


def tells_of_the_logo(node: FarmNode, version: str) -> bool:
    """Whether the node's log says that the logo of this version is damaged."""
    told = rf"shop: version {version}\b.* is damaged and .*not .*served.*: img/logo\.png"
    return re.search(told, node.daemon.log) is not None


def test_a_chunk_damaged_on_the_data_servers_disk_is_named_never_staged_and_healed_by_a_new_publication(
    farm: Farm,
) -> None:
    one = farm.publish(ONE)
    (pack,) = (farm.data.state / "packs").glob("*.pack")
    spoil(pack, ONE["img/logo.png"])
    node = farm.node("web-1")
    told = f"({LOGO}) of {one} is damaged here; publish its tree again"
    eventually(lambda: told in node.shop().get("detail", ""), what="the node cannot stage, and says why")
    assert versions(node) == []
    assert node.linked() is None
    assert node.get("/shop/prices.json").code == 503
    assert re.search(rf"{LOGO[:16]}.*forgotten until a publication brings it again", farm.data.log)
    assert farm.publish(ONE) == one
    eventually(lambda: is_right(node, one, ONE), what="the node serves what was published again")
    assert "Traceback" not in farm.data.log + node.daemon.log


def test_a_byte_that_changes_on_the_way_is_noticed_and_asked_for_again(farm: Farm) -> None:
    with MeddlingRelay(farm.address, every=200_000) as relay:
        node = behind(relay, farm)
        relay.flips = 1
        one = farm.publish(ONE)
        eventually(lambda: is_right(node, one, ONE), what="the node has asked again")
        assert relay.flipped == 1
        relay.flips = 1  # and in the difference from one version to the next
        two = farm.publish(TWO)
        eventually(lambda: is_right(node, two, TWO), what="the node has asked again")
        assert relay.flipped == 2
        assert "Traceback" not in node.daemon.log
        node.daemon.stop()


def test_what_never_arrives_whole_is_never_staged_until_it_does(farm: Farm) -> None:
    with MeddlingRelay(farm.address, every=200_000) as relay:
        node = behind(relay, farm)
        other = farm.node("web-2")
        one = farm.publish(ONE)
        farm.settled(one)
        relay.flips = -1
        two = farm.publish(TWO)
        eventually(lambda: is_right(other, two, TWO), what="the other node, without a relay, is not affected")
        eventually(lambda: node.shop()["state"] == "failed", what="the node cannot stage")
        assert relay.flipped > 0
        assert versions(node) == [one]
        assert node.serves(one)
        assert node.get("/shop/prices.json").body == ONE["prices.json"]
        relay.flips = 0
        eventually(lambda: is_right(node, two, TWO), what="the node stages once what comes is whole")
        assert "Traceback" not in node.daemon.log
        node.daemon.stop()


def test_a_bit_that_turned_on_a_nodes_disk_is_found_at_start_and_the_version_copied_again(farm: Farm) -> None:
    node = farm.node("web-1")
    one = farm.publish(ONE)
    farm.settled(one)
    node.daemon.stop()
    spoil(node.cache / "active" / "img/logo.png", ONE["img/logo.png"])
    node.daemon.start().ready()
    eventually(lambda: tells_of_the_logo(node, one), what="every byte is read, after the start")
    eventually(lambda: is_right(node, one, ONE), what="the version is copied again")
    assert "Traceback" not in node.daemon.log


def test_a_node_that_reads_every_byte_first_serves_no_damaged_file_not_even_without_a_data_server(farm: Farm) -> None:
    with MeddlingRelay(farm.address, every=1) as relay:
        node = behind(relay, farm, "--check", "hash")
        one = farm.publish(ONE)
        farm.settled(one)
        node.daemon.stop()
        farm.data.kill()
        spoil(node.cache / "active" / "img/logo.png", ONE["img/logo.png"])
        node.daemon.start().ready()
        eventually(lambda: tells_of_the_logo(node, one), what="every byte is read, before anything is served")
        assert node.get("/shop/img/logo.png").code == 503
        assert node.get("/ready").code == 503
        relay.target = farm.data.start().address("listen")
        eventually(lambda: is_right(node, one, ONE), what="the version is copied again")
        assert node.get("/ready").code == 200
        node.daemon.stop()
