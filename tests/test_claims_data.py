"""Claims of the data server, against the real daemon."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.content import Chunk, GetChunks, GetManifest, ManifestIs, Sent
from farmsyncd.core.messages.operating import Answer, History, Status
from farmsyncd.core.messages.schedule import Pins, Plan, Schedule
from farmsyncd.core.snapshot import decode_pieces
from tests.caller import Caller
from tests.daemons import Daemon, Daemons
from tests.dataserver import tree
from tests.eventually import eventually

LISTEN = ("--listen", "tcp:0:interface=127.0.0.1")


def data_server(daemons: Daemons, *options: str) -> Daemon:
    return daemons.start("farmsync-data", *LISTEN, *options).ready()


def plan_of(peer: Caller, dataset: str = "shop") -> Plan:
    """Ask for the plan; pins and older plans that were pushed come before the answer."""
    peer.send(Schedule(dataset), Time())
    plan: Plan | None = None
    while not isinstance(message := peer.receive(), Now):
        if isinstance(message, Plan):
            plan = message
    while plan is None:
        message = peer.receive()
        plan = message if isinstance(message, Plan) else None
    return plan


def history(address: str, dataset: str = "shop") -> list[dict[str, object]]:
    with Caller(address) as operator:
        answer = operator.ask(History(dataset), Answer)
    cycles: list[dict[str, object]] = json.loads(answer.json)["cycles"]
    return cycles


def test_claim_s1_01_a_node_asks_for_the_scheduled_activation_time_and_is_given_it(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = data_server(daemons).address("listen")
    with Caller(address) as operator:
        accepted = operator.publish("shop", tree(tmp_path / "site", a="1"), "in:600000000000")
    with Caller(address, "node", "web-1", instance="a") as node:
        pins, plan = (node.ask(Schedule("shop"), Pins), node.expect(Plan))
        assert pins.versions == ()
        assert (plan.next_cycle, plan.next_version, plan.activates_at) == (1, accepted.version, accepted.activates_at)
    with Caller(address, role=None) as person:
        assert person.ask(Schedule("shop"), Plan) == plan
        now = person.ask(Time(), Now)
        assert now.farm_ns < accepted.activates_at < now.farm_ns + 600_000_000_000


def periodic(tmp_path: Path, site: Path) -> tuple[str, str]:
    config = tmp_path / "data.toml"
    config.write_text(
        f"""
        [data]
        now-lead = "100ms"
        freeze-lead = "50ms"
        backstop = "1h"
        [data.dataset.shop]
        directory = "{site}"
        period = "1s"
        """
    )
    return "--config", str(config)


def test_claim_s1_09_after_the_activation_the_staged_data_becomes_active_and_new_data_is_read(
    daemons: Daemons, tmp_path: Path
) -> None:
    site = tree(tmp_path / "site", a="1")
    address = data_server(daemons, *periodic(tmp_path, site)).address("listen")
    with Caller(address, "node", "web-1", instance="a") as node:
        first = eventually(lambda: plan_of(node).next_version)
        tree(tmp_path / "new", a="2")
        (tmp_path / "new" / "a").replace(site / "a")
        second = eventually(lambda: (plan := plan_of(node)).next_version not in {None, first} and plan)
        assert second.version == first
        third = eventually(lambda: (plan := plan_of(node)).version == second.next_version and plan)
    with Caller(address, "stager", "web-1") as stager:
        assert third.version is not None
        manifest = decode_pieces(stager.ask(GetManifest(third.version), ManifestIs).pieces, third.version)
        chunk = stager.ask(GetChunks(third.version, b"0"), Chunk)
        assert stager.expect(Sent).version == third.version
        assert [entry.path for entry in manifest.entries] == [b"a"]
        assert chunk.data == b"2"


def test_claim_s1_10_the_next_activation_time_is_calculated(daemons: Daemons, tmp_path: Path) -> None:
    site = tree(tmp_path / "site", a="1")
    address = data_server(daemons, *periodic(tmp_path, site)).address("listen")
    with Caller(address, "node", "web-1", instance="a") as node:
        times: set[int] = set()

        def three_are_known() -> bool:
            at = plan_of(node).activates_at
            times.update([] if at is None else [at])
            return len(times) == 3

        eventually(three_are_known)
    # On whole seconds of the wall clock, from which farm time drifts: see the test of periodic datasets on a fake one.
    assert all(later - earlier > 500_000_000 for earlier, later in itertools.pairwise(sorted(times)))


def test_claim_s1_11_hundreds_of_nodes_come_back_at_once_and_the_server_is_killed_among_them(
    daemons: Daemons, tmp_path: Path
) -> None:
    server = data_server(daemons, "--backstop", "1h")
    for number, ending in enumerate(("in good order", "at once", "when the first one knows"), 1):
        with Caller(server.address("listen")) as operator:
            accepted = operator.publish("shop", tree(tmp_path / "site", a=ending), "in:300000000")
            wait_for(operator, accepted.activates_at)
        nodes = [Caller(server.address("listen"), "node", f"web-{index}", instance="a") for index in range(150)]
        for node in nodes:
            node.send(Schedule("shop"))
        if ending != "at once":
            for node in nodes if ending == "in good order" else nodes[:1]:
                wait_until_it_knows(node, number)
        if ending != "in good order":
            server.kill()
            server.start().ready()
        for node in nodes:
            node.close()
        with Caller(server.address("listen"), "node", "web-x", instance="a") as last:
            plan = wait_until_it_knows(last, number, ask=True)
        assert (plan.version, plan.activated_at, plan.revision) == (accepted.version, accepted.activates_at, 2 * number)
        cycles = history(server.address("listen"))
        assert [one["cycle"] for one in cycles] == list(range(number, 0, -1))
        assert [one["outcome"] for one in cycles] == ["active"] + ["past"] * (number - 1)


def wait_for(operator: Caller, farm_ns: int) -> None:
    eventually(lambda: operator.ask(Time(), Now).farm_ns >= farm_ns)


def wait_until_it_knows(node: Caller, cycle: int, *, ask: bool = False) -> Plan:
    """The first plan that comes in which ``cycle`` is active."""
    if ask:
        node.send(Schedule("shop"))
    while not (isinstance(message := node.receive(), Plan) and message.cycle == cycle):
        pass
    return message


def test_claim_s1_16_the_data_server_tells_connected_nodes_of_a_new_time_and_gives_them_the_data(
    daemons: Daemons, tmp_path: Path
) -> None:
    address = data_server(daemons).address("listen")
    site = tree(tmp_path / "site", a="1" * 1000, b=bytes(range(256)) * 40_000)
    with Caller(address, "node", "web-1", instance="a") as node, Caller(address) as operator:
        node.ask(Schedule("shop"), Pins)
        assert node.expect(Plan).next_cycle is None
        accepted = operator.publish("shop", site, "in:600000000000")
        pushed = node.expect(Plan)  # nobody asked for it
        assert (pushed.next_version, pushed.activates_at) == (accepted.version, accepted.activates_at)
        assert json.loads(operator.ask(Status(), Answer).json)["datasets"]["shop"]["next"]["cycle"] == 1
    with Caller(address, "stager", "web-1") as stager:
        manifest = decode_pieces(stager.ask(GetManifest(accepted.version), ManifestIs).pieces, accepted.version)
        wanted = {digest for digest, _length in manifest.distinct_chunks()}
        stager.send(GetChunks(accepted.version, f"0-{len(wanted) - 1}".encode()))
        while isinstance(message := stager.receive(), Chunk):
            wanted.remove(message.digest)
        assert message == Sent(accepted.version)
        assert not wanted
