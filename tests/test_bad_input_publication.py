"""Unknown datasets and versions, and publications that meet: each is told why, and what was planned stands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemons, environment
from tests.eventually import eventually
from tests.shell import Shell

LOCAL = "tcp:0:interface=127.0.0.1"
NOBODY = "0" * 40


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a data server with a node, and with a dataset ``shop`` of which cycle 1 is active."""
    with Daemons(tmp_path_factory.mktemp("farm")) as daemons:
        server = daemons.start("farmsync-data", "--listen", LOCAL, "--now-lead", "200ms", name="data")
        daemons.start("farmsync-node", "--data", server.address("listen"), "--name", "web1", name="web1")
        shell = Shell(tmp_path_factory.mktemp("shell"), server.address("listen"))
        version = shell.json("publish", "shop", shell.site("first", page="first"), "--now")["version"]
        eventually(lambda: [node["active"] for node in shell.status()["nodes"]] == [version], what="web1 serves")
        yield server.address("listen")
        assert "Traceback" not in server.log


@pytest.fixture
def shell(farm: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, farm)


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "shopp"),
        ("report", "shopp"),
        ("cancel", "shopp"),
        ("rollback", "shopp", "--now"),
        ("rollback", "shopp", "--to", NOBODY, "--now"),
        ("wait", "shopp", "--version", NOBODY),
        ("pin", "web1", "shopp", NOBODY),
        ("unpin", "web1", "shopp"),
    ],
)
def test_an_unknown_dataset_is_told_with_those_that_are_known(shell: Shell, arguments: tuple[str, ...]) -> None:
    before = shell.status()["datasets"]
    said = shell.fails(65, *arguments)
    assert "shopp" in said
    assert "shop" in said.replace("shopp", "")
    assert shell.status()["datasets"] == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("rollback", "shop", "--to", NOBODY, "--now"), "expected a version of shop ("),
        (("rollback", "shop", "--now"), "expected a version of shop before the active one, and there is none"),
        (("wait", "shop", "--version", NOBODY), "expected a version of shop"),
        (("pin", "web1", "shop", NOBODY), "expected a version of shop"),
        (("pin", "web2", "shop", NOBODY), "expected a node of this farm (web1), and web2 came"),
        (("unpin", "web1", "shop"), "expected a pin of web1 in shop, and there is none"),
        (("report", "shop", "99"), "there is no cycle 99; see `farmsync history shop`"),
        (("cancel", "shop"), "expected a pending cycle of shop, and nothing is pending"),
    ],
)
def test_an_unknown_version_node_or_cycle_is_told_and_changes_nothing(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    before = shell.status()["datasets"]
    assert told in shell.fails(65, *arguments)
    assert shell.status()["datasets"] == before


def test_before_the_freeze_point_the_later_publication_replaces_the_pending_one_and_says_so(shell: Shell) -> None:
    first = shell.json("publish", "moves", shell.site("one", page="1"), "--in", "1h")["version"]
    second = shell.site("two", page="2")
    forecast = shell.ok("publish", "moves", second, "--in", "2h", "--dry-run")
    assert f"would replace the pending version {first[:12]}" in forecast
    said = shell.ok("publish", "moves", second, "--in", "2h")
    assert f"replaces the pending version {first[:12]}, which will not be activated" in said
    cycles = shell.json("history", "moves")["cycles"]
    assert [(one["cycle"], one["outcome"]) for one in cycles] == [(2, "pending"), (1, "replaced")]
    coming = cycles[0]["version"]
    eventually(
        lambda: [node["staged"] for node in shell.status()["nodes"] if node["dataset"] == "moves"] == [coming],
        what="web1 stages what came later",
    )


def test_of_two_publications_at_once_one_replaces_the_other_and_says_so(shell: Shell) -> None:
    sites = [shell.site("one", page="1"), shell.site("two", page="2")]
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "farmsyncd.cli", "publish", "both", site, "--in", "1h", "--json"],
            env={**environment(XDG_CACHE_HOME=f"{site}.cache"), "FARMSYNC_DATA": shell.data},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        for site in sites
    ]
    answers = [json.loads(command.communicate(timeout=60)[0]) for command in commands]
    first, second = sorted(answers, key=lambda answer: int(answer["cycle"]))
    assert (first["cycle"], first["replaced"]) == (1, None)
    assert (second["cycle"], second["replaced"]) == (2, first["version"])
    assert shell.status()["datasets"]["both"]["next"]["version"] == second["version"]


def test_after_the_freeze_point_what_is_planned_stands_and_whoever_wants_otherwise_is_told(
    daemons: Daemons, tmp_path: Path
) -> None:
    server = daemons.start("farmsync-data", "--listen", LOCAL, "--freeze-lead", "1h")
    shell = Shell(tmp_path, server.address("listen"))
    first = shell.json("publish", "shop", shell.site("one", page="1"), "--in", "30m")
    planned = shell.status()["datasets"]["shop"]["next"]
    assert planned["version"] == first["version"]
    second = shell.site("two", page="2")
    for arguments in (
        ("publish", "shop", second, "--in", "2h"),
        ("publish", "shop", second, "--in", "2h", "--dry-run"),
        ("publish", "shop", second, "--now"),
        ("cancel", "shop"),
    ):
        said = shell.fails(65, *arguments)
        assert f"cycle {first['cycle']} of shop activates in " in said
        assert "is past its freeze point: nodes already count on it; " in said
    assert shell.status()["datasets"]["shop"]["next"] == planned
    assert "cycle 1" in shell.ok("publish", "other", second, "--in", "30m"), "another dataset is not frozen"
    assert "Traceback" not in server.log
