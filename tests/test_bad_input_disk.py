"""Full disks: foreseen before anything is sent or staged; what is active goes on, and less data goes through."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Daemons
from tests.dataserver import tree
from tests.eventually import eventually
from tests.shell import Shell
from tests.small_disk import SmallDisk

LOCAL = "tcp:0:interface=127.0.0.1"
MIB = 1 << 20
DISK = 24 * MIB  # 16 of them stay free in any case
TOO_MUCH = 12 * MIB


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory that is too large for the disk."""
    return tree(tmp_path / "large", large=random.Random(5).randbytes(TOO_MUCH), small="large")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One that is not."""
    return tree(tmp_path / "small", small="small")


def test_a_publication_for_which_the_data_server_has_no_room_is_refused_before_anything_is_sent(
    daemons: Daemons, tmp_path: Path, large: Path, small: Path
) -> None:
    disk = SmallDisk.at(tmp_path / "data" / "state", DISK)
    server = daemons.start("farmsync-data", "--listen", LOCAL, name="data", through=disk.through, **disk.env)
    shell = Shell(tmp_path, server.address("listen"))
    first = shell.json("publish", "shop", str(small), "--in", "1h")
    for dry in ((), ("--dry-run",)):
        said = shell.fails(69, "publish", "shop", str(large), "--in", "2h", *dry)
        assert f"MB free for {server.state}, and " in said
        assert re.search(r"MB are: free \d\.\d MB or more and try again$", said.strip())
    assert shell.status()["datasets"]["shop"]["next"]["version"] == first["version"]
    again = shell.json("publish", "shop", str(tree(tmp_path / "other", small="other")), "--in", "2h")
    assert again["replaced"] == first["version"]
    assert "Traceback" not in server.log


def test_a_node_that_has_no_room_says_so_before_it_stages_and_the_others_flip_without_it(
    daemons: Daemons, tmp_path: Path, large: Path, small: Path
) -> None:
    data = daemons.start("farmsync-data", "--listen", LOCAL, "--now-lead", "200ms", name="data").address("listen")
    shell = Shell(tmp_path, data)
    disk = SmallDisk.at(tmp_path / "narrow" / "state", DISK)
    narrow = daemons.start(
        "farmsync-node", "--data", data, "--name", "narrow", name="narrow", through=disk.through, **disk.env
    )
    daemons.start("farmsync-node", "--data", data, "--name", "wide", name="wide")

    def standing(name: str) -> dict[str, Any]:
        """How the node stands; of an unknown one nothing is known."""
        unknown = {"active": None, "state": "unknown", "detail": ""}
        return next((one for one in shell.status()["nodes"] if one["name"] == name), unknown)

    def stand(name: str) -> tuple[str | None, str]:
        """The node's active version and its state."""
        one = standing(name)
        return one["active"], one["state"]

    first = shell.json("publish", "shop", str(small), "--now")["version"]
    for name in ("narrow", "wide"):
        eventually(lambda name=name: stand(name) == (first, "ready"), what=f"{name} serves")  # type: ignore[misc]

    planned = shell.json("publish", "shop", str(large), "--in", "1h")["version"]
    eventually(lambda: stand("wide") == (first, "staged"), what="wide has staged")

    def told() -> bool:
        one, said = standing("narrow"), shell.ok("status")
        assert (one["active"], one["state"]) == (first, "failed")
        assert f"MB free for {narrow.state / 'shop' / 'staging' / planned}, and " in one["detail"]
        assert "or more and try again" in one["detail"]
        assert f"narrow, shop: {one['detail']}\n" in said
        return True

    eventually(told, what="narrow says that it cannot stage, and why")
    assert f"shop: version {planned} could not be staged for cycle 2, and will be tried again: expected " in narrow.log

    assert shell.json("publish", "shop", str(large), "--now")["version"] == planned
    eventually(lambda: stand("wide") == (planned, "ready"), what="wide flips")
    eventually(lambda: stand("narrow")[0] == first, what="narrow stays where it was")
    last = shell.json("publish", "shop", str(tree(tmp_path / "last", small="last")), "--now")["version"]
    for name in ("narrow", "wide"):
        eventually(lambda name=name: stand(name) == (last, "ready"), what=f"{name} serves again")  # type: ignore[misc]
    assert "Traceback" not in narrow.log
