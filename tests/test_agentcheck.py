from __future__ import annotations

import csv
import io
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from farmsyncd.core.standing import Known, Turn
from farmsyncd.node import agentcheck
from farmsyncd.node.agentcheck import AgentFactory, missed
from tests.daemons import TREE, Daemons
from tests.eventually import LIMIT, eventually
from tests.farm import Farm, FarmNode
from tests.leaks import LoggedErrors
from tests.proxies import HAPROXY, haproxy, haproxy_says, needs_haproxy, port_of, reserved

SECOND_NS = 10**9
OLD, NEW = Turn(1, "a" * 40, 100 * SECOND_NS), Turn(2, "b" * 40, 200 * SECOND_NS)
GRACE_NS = 10 * SECOND_NS
LOCAL = "tcp:0:interface=127.0.0.1"


@pytest.mark.parametrize(
    ("known", "active", "at_s", "late"),
    [
        (Known(1, OLD, NEW), OLD, 150, None),
        (Known(1, OLD, NEW), OLD, 210, None),
        (Known(1, OLD, NEW), OLD, 211, NEW),
        (Known(1, OLD, NEW), NEW, 211, None),
        (Known(1, NEW), OLD, 205, None),
        (Known(1, NEW), OLD, 300, NEW),
        (Known(1, NEW), NEW, 300, None),
        (Known(1, OLD), NEW, 300, None),
        (Known(1, NEW), OLD, None, None),
        (Known(1, NEW, objection="it went back"), OLD, 300, None),
        (Known(), None, 300, None),
        (Known(1, NEW), None, 300, NEW),
    ],
)
def test_a_turn_is_missed_once_its_time_and_the_grace_are_over(
    known: Known, active: Turn | None, at_s: int | None, late: Turn | None
) -> None:
    assert missed(known, active, None if at_s is None else at_s * SECOND_NS, GRACE_NS) == late


class Connection(StringTransport):
    """A transport that knows how it was ended."""

    ended = ""

    def abortConnection(self) -> None:  # noqa: N802 - ITCPTransport
        self.ended = "abort"

    def loseWriteConnection(self) -> None:  # noqa: N802 - ITCPTransport
        self.ended = "half"


def test_the_line_is_said_and_the_client_goes_or_is_let_go() -> None:
    clock = Clock()
    factory = AgentFactory(lambda: "up 100%", clock)
    for patient in (True, False):
        agent, transport = factory.buildProtocol(None), Connection()
        agent.makeConnection(transport)
        agent.dataReceived(b"farm\n")
        assert (transport.value(), transport.ended) == (b"up 100%\n", "half")
        if patient:
            agent.connectionLost()
            assert clock.getDelayedCalls() == []
        else:
            clock.advance(agentcheck.PATIENCE_S)
            assert transport.ended == "abort"


def test_a_fault_of_ours_is_no_answer(logged_errors: LoggedErrors) -> None:
    clock = Clock()
    agent, transport = AgentFactory(lambda: str(1 // 0), clock).buildProtocol(None), Connection()
    agent.makeConnection(transport)
    assert (transport.value(), transport.ended) == (b"", "abort")
    agent.connectionLost()
    logged_errors.take(ZeroDivisionError)


# With real nodes and a real HAProxy


def agent_port(node: FarmNode) -> int:
    return int(node.daemon.addresses["agent"].rpartition(":")[2])


def said(node: FarmNode) -> str:
    """What the node's agent says."""
    with socket.create_connection(("127.0.0.1", agent_port(node)), LIMIT) as client, client.makefile("r") as lines:
        return lines.read()


SLOW = """
[node.staging]
rate = "64KiB"
spread = "0"
"""


def slow_node(farm: Farm, folder: Path) -> FarmNode:
    """A node that brings in 64 KiB a second, and is not patient with itself."""
    config = folder / "slow.toml"
    config.write_text(f"[node]\nagent = '{LOCAL}'\nstale-after = '200ms'\n{SLOW}")
    return farm.node("web1", "--config", str(config))


def test_an_agent_says_what_its_node_has(daemons: Daemons, tmp_path: Path) -> None:
    farm = Farm(daemons, tmp_path)
    node = slow_node(farm, tmp_path)
    eventually(lambda: said(node) == "down #no dataset is followed yet\n")
    small = {"index.html": b"small"}
    farm.settled(farm.publish(small))
    assert said(node) == "up 100%\n"
    farm.publish({"index.html": os.urandom(8 << 20)})  # this takes two minutes
    eventually(lambda: said(node) == "up 0% #shop: cycle 2 was missed\n")
    farm.publish(small)
    eventually(lambda: said(node) == "up 100%\n")


FOLLOWING = """
frontend shop
    mode tcp
    bind {0}
    default_backend farm
backend farm
    mode tcp
    balance leastconn
    server web1 127.0.0.1:PORT check inter 200ms agent-check agent-inter 100ms agent-port AGENT
    server any1 127.0.0.1:PORT check inter 200ms backup non-stick
"""


def makes_of_it(stats: Path, weight: str, *statuses: str) -> bool:
    """Whether HAProxy gives the node this weight, in one of these states: for a weight of 0, versions differ."""
    rows = csv.DictReader(io.StringIO(haproxy_says(stats, "show stat").removeprefix("# ")))
    row = next(row for row in rows if row["pxname"] == "farm" and row["svname"] == "web1")
    status = row["status"].removesuffix(" (agent)")
    assert status in statuses, f"{status}, {row['last_agt']}"
    assert row["weight"] == weight, row["last_agt"]
    return True


@needs_haproxy
def test_a_real_haproxy_follows_the_farms_versions_by_the_nodes_agents(daemons: Daemons, tmp_path: Path) -> None:
    farm = Farm(daemons, tmp_path)
    node = slow_node(farm, tmp_path)
    web = node.daemon.addresses["http"].rpartition(":")[2]
    text = FOLLOWING.replace("PORT", web).replace("AGENT", str(agent_port(node)))
    with reserved() as own_port, haproxy(tmp_path / "haproxy", text, own_port) as stats:
        eventually(lambda: makes_of_it(stats, "1", "DOWN"))
        small = {"index.html": b"small"}
        farm.settled(farm.publish(small))
        eventually(lambda: makes_of_it(stats, "1", "UP"))
        farm.publish({"index.html": os.urandom(8 << 20)})
        eventually(lambda: makes_of_it(stats, "0", "DRAIN", "UP"))
        # The node that is left is better than none: the example names all a second time, as they are, for that.
        url = f"http://127.0.0.1:{port_of(own_port)}/shop/index.html"
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            assert response.read() == b"small"
        farm.publish(small)
        eventually(lambda: makes_of_it(stats, "1", "UP"))


@needs_haproxy
def test_the_example_for_haproxy_can_be_used_as_it_stands(tmp_path: Path) -> None:
    assert HAPROXY is not None
    checked = subprocess.run(
        [HAPROXY, "-c", "-f", str(TREE / "etc" / "haproxy.cfg")],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "ALERT" not in checked.stderr
