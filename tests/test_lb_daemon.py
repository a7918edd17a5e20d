from __future__ import annotations

import contextlib
import subprocess
import urllib.error
from collections import Counter
from pathlib import Path

import pytest

from tests.daemons import TWISTD, Daemons, environment
from tests.eventually import eventually
from tests.farm import Farm
from tests.lb_farm import Balancer, named_nodes


def _sources(count: int) -> list[str]:
    return [f"127.0.0.{number}" for number in range(10, 10 + count)]


def test_claim_s2_01_the_first_packet_of_a_source_goes_to_the_node_with_the_least_connections(daemons: Daemons) -> None:
    with named_nodes("abc") as nodes, contextlib.ExitStack() as held:
        balancer = Balancer(daemons, *[word for node in nodes.values() for word in ("--node", node.option)])
        homes = {}
        for source in _sources(9):
            client = held.enter_context(balancer.connect(source))
            homes[client] = client.recv(1).decode()
        assert Counter(homes.values()) == {"a": 3, "b": 3, "c": 3}
        for client in [client for client, home in homes.items() if home == "b"]:
            client.close()
        eventually(lambda: balancer.connections() == {"a": 3, "b": 0, "c": 3})
        newcomer = held.enter_context(balancer.connect("127.0.0.100"))
        assert newcomer.recv(1) == b"b"


def test_claim_s2_02_later_packets_of_a_source_go_to_the_same_node(daemons: Daemons) -> None:
    with named_nodes("abc") as nodes, contextlib.ExitStack() as held:
        balancer = Balancer(daemons, *[word for node in nodes.values() for word in ("--node", node.option)])
        homes = {source: balancer.ask(source) for source in _sources(6)}
        loaded, home = next(iter(homes.items()))
        for _ in range(5):  # its node is the busiest now: load moves nobody
            assert held.enter_context(balancer.connect(loaded)).recv(1).decode() == home
        for _ in range(3):
            assert {source: balancer.ask(source) for source in homes} == homes
        assert balancer.get("/status")["sources"] == len(homes)


def test_a_node_that_takes_no_connection_is_replaced_at_once_and_for_good(daemons: Daemons) -> None:
    with named_nodes("ab") as nodes:
        balancer = Balancer(daemons, *[word for node in nodes.values() for word in ("--node", node.option)])
        home = balancer.ask("127.0.0.10")
        other = "b" if home == "a" else "a"
        nodes[home].deafen()
        assert balancer.ask("127.0.0.10") == other
        nodes[home].listen()
        assert balancer.ask("127.0.0.10") == other, "it is not sent back: the first node's cache is old"
        failures = {node["name"]: node["failures_total"] for node in balancer.get("/status")["nodes"]}
        assert failures == {home: 1, other: 0}


def test_without_any_node_a_client_is_reset_and_served_again_once_there_is_one(daemons: Daemons) -> None:
    with named_nodes("a") as nodes:
        balancer = Balancer(daemons, "--node", nodes["a"].option, "--retry-after", "10m")
        nodes["a"].deafen()
        for _ in range(4):
            with pytest.raises(ConnectionResetError), balancer.connect() as client:
                client.recv(1)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            balancer.get("/ready")
        nodes["a"].listen()
        assert balancer.ask("127.0.0.1") == "a"
        assert balancer.get("/ready") == "1 of 1 nodes take new sources\n"
        assert 'farmsync_lb_connections_total{node="a"} 5.0' in balancer.get("/metrics")
        assert "node a is down: " in balancer.daemon.log
        assert "node a is ready again" in balancer.daemon.log


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "tcp:0"], "there is nobody to balance"),
        (["--listen", "tcp:0", "--node", "a:80"], "a node's name and address"),
        (["--listen", "tcp:0", "--node", "a=h:1", "--node", "a=h:2"], "expected each node once, found a"),
        (["--listen", "ssl:443", "--node", "a=h:1"], "--listen: expected an endpoint to listen on"),
    ],
)
def test_a_wrong_command_line_is_one_clear_message(arguments: list[str], told: str, tmp_path: Path) -> None:
    command = [*TWISTD, "-n", "--pidfile=", "farmsync-lb", *arguments]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(), check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 78
    assert told in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_the_nodes_that_the_data_server_knows_are_balanced_also_while_it_is_away(
    daemons: Daemons, tmp_path: Path
) -> None:
    with named_nodes("ab") as servers, contextlib.ExitStack() as held:
        farm = Farm(daemons, tmp_path)
        for name, server in servers.items():
            farm.node(name, "--serve", server.option.partition("=")[2])
        balancer = Balancer(daemons, "--data", farm.address)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            balancer.get("/ready")
        farm.settled(farm.publish({"index.html": b"hello"}))
        eventually(lambda: set(balancer.connections()) == {"a", "b"})
        clients = [held.enter_context(balancer.connect(source)) for source in _sources(4)]
        assert Counter(client.recv(1) for client in clients) == {b"a": 2, b"b": 2}
        farm.data.kill()
        eventually(lambda: balancer.get("/status")["data_server"] is False)
        assert {balancer.ask(source) for source in _sources(4)} == {"a", "b"}
