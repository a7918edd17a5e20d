"""``farmsync status``: who has what staged, how good each clock comparison is, and the countdown."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.times import NS, span_shown
from farmsyncd.core.messages.operating import Status

_STYLES = {"ready": "green", "staged": "green", "staging": "yellow", "empty": "yellow", "late": "red", "failed": "red"}


@click.command("status", short_help="Show datasets, nodes and the countdown.")
@options.data
@options.as_json
def command(data: str, as_json: bool) -> None:
    """Show what is active and what comes next in each dataset, and how every node stands."""

    async def talk(operator: Operator) -> Any:
        return await operator.answer(Status())

    status = converse(data, talk)
    if as_json:
        show.print_json(status)
    else:
        print_status(status, show.now())


def print_status(status: dict[str, Any], now: datetime) -> None:
    """The farm's status, for people; ``now`` is this machine's time."""
    out = show.out()
    shift = int(now.timestamp() * 1_000_000) * 1_000 - status["farm_time_ns"]
    if not status["datasets"]:
        out.print("No dataset yet: `farmsync publish DATASET PATH --now` makes the first.")
    for name, dataset in status["datasets"].items():
        active, coming = dataset["active"], dataset["next"]
        out.print(f"[bold]{name}[/]")
        if active is None:
            out.print("  active  none yet")
        else:
            when = show.moment(active["activated_at_ns"] + shift, now)
            out.print(f"  active  {show.version(active['version'])}  cycle {active['cycle']}, since {when}")
        if coming is not None:
            when = show.moment(coming["activates_at_ns"] + shift, now)
            out.print(f"  next    {show.version(coming['version'])}  cycle {coming['cycle']}, {when}")
    if status["nodes"]:
        out.print()
        out.print(_nodes(status["nodes"], status["farm_time_ns"]))
        for node in status["nodes"]:
            if node.get("detail"):
                out.print(_detail(node), soft_wrap=True)
    elif status["datasets"]:
        out.print("\nNo node has come yet.")
    for dataset, source in status.get("sources", {}).items():
        out.print(Text(f"{dataset}: its source cannot be read: {source['detail']}", style="red"), soft_wrap=True)


def _nodes(nodes: list[dict[str, Any]], farm_ns: int) -> Any:
    made = show.table("NODE", "DATASET", "STATE", "ACTIVE", "STAGED", "CLOCK OFFSET", "BOUND", "SEEN",
                      right=("CLOCK OFFSET", "BOUND", "SEEN"))  # fmt: skip
    for node in nodes:
        style = _STYLES.get(node["state"], "dim")
        made.add_row(
            node["name"],
            node["dataset"],
            f"[{style}]{node['state']}[/]",
            show.version(node["active"]),
            show.version(node["staged"]),
            "-" if node["offset_ns"] is None else span_shown(node["offset_ns"]),
            "-" if node["error_bound_ns"] is None else f"±{span_shown(node['error_bound_ns'])}",
            _seen(farm_ns - node["last_seen_ns"]),
        )
    return made


def _seen(ago_ns: int) -> str:
    return f"{span_shown(ago_ns)} ago" if ago_ns >= NS else "now"


def _detail(node: dict[str, Any]) -> Text:
    """What a node says of itself, which is too long for a table and may hold anything."""
    return Text(f"{node['name']}, {node['dataset']}: {node['detail']}", style="red")
