"""``farmsync wait``: come back once every node serves a version."""

from __future__ import annotations

from typing import Any

import click
from rich.status import Status as Spinner
from twisted.internet.task import deferLater

from farmsyncd.cli import options, show, times
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.versions import full_version
from farmsyncd.core.messages.operating import History, Status
from farmsyncd.errors import BadInput, TimedOut

_PAUSE = 0.2  # seconds between two looks


@click.command("wait", short_help="Wait until all nodes serve a version.")
@options.dataset
@click.option(
    "--version", "wanted", required=True, help="The version to wait for; its first hexadecimal digits will do."
)
@click.option("--timeout", default="60", metavar="S", show_default=True, help="How long: 90, 90s or 1h30m.")
@options.data
@options.as_json
def command(dataset: str, wanted: str, timeout: str, data: str, as_json: bool) -> None:
    """Wait until every connected node serves this version of DATASET; leave with 75 when that takes too long."""
    patience = times.read_span(timeout)

    async def talk(operator: Operator) -> dict[str, Any]:
        version = await full_version(operator, dataset, wanted)
        await _expect(operator, dataset, version)
        with show.err().status(f"waiting for {show.version(version)}") as spinner:
            return await _served(operator, dataset, version, patience, spinner)

    result = converse(data, talk)
    if as_json:
        show.print_json(result)
    else:
        count = len(result["nodes"])
        who = f"{count} nodes serve" if count > 1 else "1 node serves"
        show.out().print(f"{who} version {show.version(result['version'])} of {dataset}")


async def _expect(operator: Operator, dataset: str, version: str) -> None:
    """BadInput for a version that the dataset never had: nobody will ever serve it."""
    history = await operator.answer(History(dataset))
    if all(cycle["version"] != version for cycle in history["cycles"]):
        raise BadInput(
            f"expected a version of {dataset}, and none of its cycles has {version}; see `farmsync history {dataset}`"
        )


async def _served(operator: Operator, dataset: str, version: str, patience: int, spinner: Spinner) -> dict[str, Any]:
    from twisted.internet import reactor  # noqa: PLC0415 - a program's edge

    begun: int | None = None
    while True:
        status = await operator.answer(Status())
        begun = status["farm_time_ns"] if begun is None else begun
        nodes = [node for node in status["nodes"] if node["dataset"] == dataset and node.get("connected", True)]
        lacking = [node["name"] for node in nodes if node["active"] != version]
        if nodes and not lacking:
            return {"dataset": dataset, "version": version, "nodes": [node["name"] for node in nodes]}
        if status["farm_time_ns"] - begun >= patience:
            who = ", ".join(lacking[:10]) + (", ..." if len(lacking) > 10 else "") if nodes else "no node is connected"
            raise TimedOut(
                f"expected every node to serve {show.version(version)} within {times.span_shown(patience)}, "
                f"and still waiting for: {who}"
            )
        spinner.update(f"{len(nodes) - len(lacking)} of {len(nodes)} nodes serve {show.version(version)}")
        await deferLater(reactor, _PAUSE)
