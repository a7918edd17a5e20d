"""What keeps a daemon from starting, or out of the farm: told in full, with the documented status, harming nobody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.daemons import Daemon, Daemons
from tests.eventually import eventually
from tests.farm import Farm
from tests.shell import Shell

LOCAL = "tcp:0:interface=127.0.0.1"
NOWHERE = "tcp:127.0.0.1:1"

WRONG = """
[data]
stat = "/var/lib/farmsync"
listen = "7420"
operators = ["10.0.0.0/8", "everybody"]
freeze-lead = "two seconds"
keep = 0
[data.staging]
at-once = "many"
speed = "1MiB/s"
[data.dataset.prices]
directory = "/srv/prices"
url = "http://prices.example/"
period = "5m"
[data.dataset."not a name"]
directory = "/srv/prices"
period = "5m"
"""
FAULTS = (
    "[data] stat: not a key here; did you mean state?",
    "[data] state: expected a path (the data server's own directory), found nothing",
    "[data] listen: expected ",
    "[data] operators.item 2: expected a network such as ",
    "[data] freeze-lead: expected ",
    "[data] keep: expected ",
    "[data] staging.at-once: expected ",
    "[data] staging.speed: not a key here; the keys are at-once, rate",
    "[data] dataset.prices: expected exactly one of directory, url and command",
    "[data] dataset.not a name: expected a name",
)


def ended(daemon: Daemon) -> list[str]:
    """What a daemon said for itself that ended with status 78, the documented one for what is configured wrong."""
    assert daemon.wait() == 78
    assert "Traceback" not in daemon.log
    return [line[line.index("farmsync-") :] for line in daemon.log.splitlines() if " farmsync-" in f" {line}"]


@pytest.mark.parametrize(
    ("tapname", "arguments", "option"),
    [
        ("farmsync-data", ("--listen", LOCAL), "http"),
        ("farmsync-node", ("--data", NOWHERE, "--name", "web-1"), "http"),
        ("farmsync-lb", ("--node", "web-1=127.0.0.1:1"), "listen"),
        ("farmsync-lb", ("--node", "web-1=127.0.0.1:1", "--listen", LOCAL), "http"),
    ],
)
def test_a_port_in_use_is_named_with_what_to_do(
    daemons: Daemons, tapname: str, arguments: tuple[str, ...], option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        daemon = daemons.start(tapname, *arguments, f"--{option}", endpoint, state=tapname != "farmsync-lb")
        lines = ended(daemon)
    assert len(lines) == 1
    assert lines[0].startswith(f"{tapname}: expected to listen on {endpoint}")
    assert lines[0].endswith("Address already in use; stop the program that has the port, or name another endpoint")
    assert not daemon.addresses


def test_a_state_directory_of_another_sort_of_daemon_is_refused_while_that_one_runs(daemons: Daemons) -> None:
    server = daemons.start("farmsync-data", "--listen", LOCAL).ready()
    node = daemons.start(
        "farmsync-node", "--data", NOWHERE, "--name", "web-1", "--state", str(server.state), state=False
    )
    (line,) = ended(node)
    assert f"expected the state directory {server.state} to be free, and farmsync-data (process " in line
    assert "stop that one first, or name another directory with --state" in line
    assert server.process is not None
    assert server.process.poll() is None


def test_all_faults_of_a_configuration_are_told_at_once_by_the_daemon_and_by_the_command(
    daemons: Daemons, tmp_path: Path
) -> None:
    file = tmp_path / "data.toml"
    file.write_text(WRONG)
    by_the_command = Shell(tmp_path, NOWHERE).fails(78, "check-config", str(file))
    daemon = daemons.start("farmsync-data", "--config", str(file), state=False)
    by_the_daemon = "\n".join(ended(daemon))
    for fault in FAULTS:
        assert fault in by_the_command
        assert fault in by_the_daemon
    assert by_the_command.count("[data]") == len(FAULTS)
    assert not daemon.state.exists()


def test_a_node_name_used_twice_is_told_to_the_second_and_harms_neither_the_first_nor_the_farm(
    daemons: Daemons, tmp_path: Path
) -> None:
    farm = Farm(daemons, tmp_path)
    first, other = farm.node("web-1"), farm.node("web-2")
    one = farm.publish({"page": b"1"})
    farm.settled(one)
    twin = daemons.start("farmsync-node", "--data", farm.address, "--name", "web-1", "--http", LOCAL, name="twin")
    told = "expected a node name of its own, and web-1 is connected from "
    eventually(lambda: told in twin.log and "give one of the two another --name" in twin.log, what="the twin is told")
    eventually(lambda: told in farm.data.log, what="and whoever reads the data server's log")
    two = farm.publish({"page": b"2"})
    farm.settled(two)
    report = farm.whole_report(two)
    assert sorted(node["name"] for node in report["nodes"]) == ["web-1", "web-2"]
    status = Shell(tmp_path, farm.address).status()
    assert sorted(node["name"] for node in status["nodes"]) == ["web-1", "web-2"]
    assert first.status()["connected"]
    assert other.status()["connected"]
    twin.stop()
    renamed = list(twin.arguments)
    renamed[renamed.index("web-1")] = "web-3"
    twin.arguments = tuple(renamed)
    twin.start()
    eventually((twin.state / "shop" / "active").exists, what="with a name of its own it follows")
