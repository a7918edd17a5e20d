"""docs/operations.md keeps step: its keys, figures, commands, states and its example are those of the program."""

from __future__ import annotations

import re
import shlex
import urllib.request
from pathlib import Path
from typing import Any

import click
import pytest

from farmsyncd.cli.main import farmsync
from farmsyncd.core.messages.schedule import NODE_STATES
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile
from tests.caches import add, pointer
from tests.config_tables import PAGE, with_tables
from tests.daemons import Daemons
from tests.eventually import eventually

TEXT = PAGE.read_text("utf-8")
LOCAL = "tcp:0:interface=127.0.0.1"


def blocks(kind: str) -> list[str]:
    """The blocks of code of one kind, without their indentation."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def commands() -> list[list[str]]:
    """The words of each ``farmsync`` command that the page shows on a line of its own."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if re.match(r"farmsync [a-z]", line)]


def metrics(text: str) -> set[str]:
    """The names of metrics in Prometheus's text, or in the page."""
    return set(re.findall(r"\bfarmsync_(?:data|node|lb)_\w+", text))


def test_every_configuration_key_is_listed_with_its_default_and_meaning() -> None:
    assert with_tables(TEXT) == TEXT, "write the tables anew: python -m tests.config_tables"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_that_is_shown_can_be_typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARMSYNC_DATA", "tcp:data.example:7420")
    name, *arguments = words
    command = farmsync.commands[name]
    with command.make_context(name, list(arguments), click.Context(farmsync)) as context:
        assert context.params.keys() >= {parameter.name for parameter in command.params if parameter.required}


def test_every_state_of_a_node_is_explained() -> None:
    assert re.findall(r"^ +\| `(\w+)` \| .+ \|$", TEXT, re.MULTILINE) == [
        "empty", "staging", "staged", "ready", "late", "failed",
    ]  # fmt: skip
    assert len(NODE_STATES) == 6


def test_the_example_of_a_web_application_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CacheDir(tmp_path / "STATE" / "shop")
    version = add(cache, {"prices.json": b'{"tea": 3}'})
    PointerFile(cache.pointer_path).write(pointer(version))
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    answered: list[tuple[str, list[tuple[str, str]]]] = []
    body = names["application"]({}, lambda status, headers: answered.append((status, headers)))
    assert body == [b'{"tea": 3}']
    assert answered == [("200 OK", [("Content-Type", "application/json"), ("X-Farmsync-Version", version)])]


def test_the_metrics_that_are_listed_are_those_of_the_daemons(daemons: Daemons) -> None:
    data = daemons.start("farmsync-data", "--listen", LOCAL, "--http", LOCAL)
    balancer = daemons.start(
        "farmsync-lb", "--listen", LOCAL, "--http", LOCAL, "--node", "web-1=127.0.0.1:1", state=False
    )
    node = daemons.start(
        "farmsync-node", "--data", data.address("listen"), "--http", LOCAL, "--name", "web-1", "--dataset", "shop",
        "--wsgi", "wsgiref.simple_server:demo_app", "--sessions", "sqlite:///sessions.db",
    )  # fmt: skip

    def shown(address: str) -> set[str]:
        """The daemon's metrics, those that have no samples yet included."""
        with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
            types = re.findall(r"^# TYPE (\w+) ", answer.read().decode(), re.MULTILINE)
        return {name for name in types if not name.endswith("_created")}

    listed = metrics(TEXT)
    of_the_clock = "farmsync_node_clock_offset_seconds"
    eventually(lambda: of_the_clock in shown(node.address("http")), what="the node has compared clocks")
    assert {name for name in listed if name.startswith("farmsync_data_")} == shown(data.address("http"))
    assert {name for name in listed if name.startswith("farmsync_node_")} == shown(node.address("http"))
    assert {name for name in listed if name.startswith("farmsync_lb_")} <= shown(balancer.address("http"))
