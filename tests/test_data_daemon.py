"""The data server as a process: how it starts, refuses to start, stops, dies and comes back."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.greeting import No
from farmsyncd.core.messages.operating import Accepted, Answer, Publish, Status
from farmsyncd.core.messages.schedule import Pins, Plan, Schedule
from tests.caller import Caller, Ended
from tests.daemons import Daemons
from tests.dataserver import tree
from tests.eventually import eventually

LOOPBACK = "tcp:0:interface=127.0.0.1"
LISTEN = ("--listen", LOOPBACK)


def status(address: str) -> Any:
    with Caller(address) as operator:
        return json.loads(operator.ask(Status(), Answer).json)


def test_it_says_goodbye_ends_in_order_and_knows_all_when_it_comes_back(daemons: Daemons, tmp_path: Path) -> None:
    server = daemons.start("farmsync-data", *LISTEN).ready()
    with Caller(server.address("listen")) as operator:
        accepted = operator.publish("shop", tree(tmp_path / "site", a="1"), "in:600000000000")
        epoch = operator.ask(Time(), Now).epoch
    with Caller(server.address("listen"), "node", "web-1", instance="a") as node:
        node.ask(Schedule("shop"), Pins)
        plan = node.expect(Plan)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(Ended, match="the data server is being stopped"):
            node.receive()
    assert server.wait() == -signal.SIGTERM  # twistd ends as it was told to, once all is in order
    assert "Traceback" not in server.log
    server.start().ready()
    with Caller(server.address("listen"), "node", "web-1", instance="a") as node:
        node.ask(Schedule("shop"), Pins)
        assert node.expect(Plan) == plan
        assert (plan.activates_at, plan.next_version) == (accepted.activates_at, accepted.version)
    with Caller(server.address("listen")) as operator:
        assert operator.ask(Time(), Now).epoch != epoch


def test_a_port_in_use_is_one_clear_line_and_status_78(daemons: Daemons) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = daemons.start("farmsync-data", "--listen", f"tcp:{port}:interface=127.0.0.1")
        assert server.wait() == 78
    assert f"farmsync-data: expected to listen on tcp:{port}" in server.log
    assert "Traceback" not in server.log


def test_a_state_directory_in_use_is_one_clear_line_and_status_78(daemons: Daemons, tmp_path: Path) -> None:
    first = daemons.start("farmsync-data", *LISTEN).ready()
    second = daemons.start("farmsync-data", *LISTEN, "--state", str(first.state), state=False)
    assert second.wait() == 78
    assert f"expected the state directory {first.state} to be free, and farmsync-data" in second.log
    assert "Traceback" not in second.log
    with Caller(first.address("listen")) as operator:
        operator.ask(Time(), Now)


def test_a_catalog_that_cannot_be_read_is_one_clear_line_and_status_78(daemons: Daemons, tmp_path: Path) -> None:
    state = tmp_path / "spoiled"
    state.mkdir()
    (state / "catalog.sqlite").write_bytes(b"no database" * 1000)
    server = daemons.start("farmsync-data", *LISTEN, "--state", str(state), state=False)
    assert server.wait() == 78
    assert "catalog.sqlite to be a farmsync catalog" in server.log
    assert "Traceback" not in server.log


def test_its_http_side_shows_the_farm(daemons: Daemons, tmp_path: Path) -> None:
    server = daemons.start("farmsync-data", *LISTEN, "--http", LOOPBACK).ready()
    with Caller(server.address("listen")) as operator:
        operator.publish("shop", tree(tmp_path / "site", a="1"), "in:600000000000")
        told = json.loads(operator.ask(Status(), Answer).json)

    def get(path: str) -> str:
        with urllib.request.urlopen(server.address("http") + path, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    shown = json.loads(get("/status"))
    assert shown["datasets"] == told["datasets"]
    assert get("/ready") == "serving\n"
    assert 'farmsync_data_next_activation_seconds{dataset="shop"}' in get("/metrics")


def test_operators_are_only_who_the_configuration_says(daemons: Daemons, tmp_path: Path) -> None:
    config = tmp_path / "data.toml"
    config.write_text('[data]\noperators = ["192.0.2.0/24"]\n')
    server = daemons.start("farmsync-data", *LISTEN, "--config", str(config)).ready()
    with Caller(server.address("listen")) as operator:
        refused = operator.ask(Publish("shop", "0" * 40, "now"), No)
        assert refused.code == "forbidden"
        assert b"192.0.2.0/24" in refused.why
        operator.ask(Status(), Answer)


def test_killed_in_an_upload_it_comes_back_with_what_was_whole_and_nothing_half(
    daemons: Daemons, tmp_path: Path
) -> None:
    server = daemons.start("farmsync-data", *LISTEN).ready()
    site = tree(tmp_path / "site", a="1" * 1000, b=b"2" * 3_000_000, c=bytes(range(256)) * 8000)
    with Caller(server.address("listen")) as operator:
        version = operator.upload(site)
        server.kill()
    server.start().ready()
    with Caller(server.address("listen")) as operator:
        assert operator.ask(Publish("shop", version, "now"), No).code == "gone"
        assert isinstance(operator.publish("shop", site, "in:600000000000"), Accepted)
    assert status(server.address("listen"))["datasets"]["shop"]["next"]["version"] == version


def test_killed_after_it_accepted_it_has_not_forgotten(daemons: Daemons, tmp_path: Path) -> None:
    server = daemons.start("farmsync-data", *LISTEN).ready()
    for number in range(3):
        with Caller(server.address("listen")) as operator:
            site = tree(tmp_path / "site", a=str(number))
            accepted = operator.ask(Publish("shop", operator.upload(site), "in:600000000000"), Accepted)
            server.kill()
        server.start().ready()
        pending = status(server.address("listen"))["datasets"]["shop"]["next"]
        assert (pending["version"], pending["activates_at_ns"]) == (accepted.version, accepted.activates_at)


def test_without_any_node_the_backstop_rolls_over(daemons: Daemons, tmp_path: Path) -> None:
    server = daemons.start("farmsync-data", *LISTEN, "--backstop", "0s").ready()
    with Caller(server.address("listen")) as operator:
        version = operator.publish("shop", tree(tmp_path / "site", a="1"), "in:100000000").version
    shop = eventually(lambda: (one := status(server.address("listen"))["datasets"]["shop"])["active"] and one)
    assert shop["active"]["version"] == version
