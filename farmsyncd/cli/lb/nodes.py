"""``farmsync lb nodes``: a balancer's nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from farmsyncd.cli import options, show
from farmsyncd.cli.lb.asking import admin, ask

_STYLES = {"ready": "green", "draining": "yellow", "stale": "red", "down": "red", "maintenance": "dim"}


@click.command("nodes", short_help="Show the nodes.")
@admin
@options.as_json
def command(admin: Path, as_json: bool) -> None:
    """Show each node's state, and why; its connections, its sources, and what its weight is at this moment."""
    nodes = ask(admin, "nodes")
    if as_json:
        show.print_json(nodes)
    elif nodes["nodes"]:
        print_nodes(nodes["nodes"])
    else:
        show.out().print("No node is known yet.")


def print_nodes(nodes: list[dict[str, Any]]) -> None:
    """The nodes as a table."""
    made = show.table("NODE", "ADDRESS", "STATE", "CONNECTIONS", "SOURCES", "WEIGHT", "FAILURES", "",
                      right=("CONNECTIONS", "SOURCES", "WEIGHT", "FAILURES"))  # fmt: skip
    for node in nodes:
        state = styled(node["state"])
        limit = "" if node["limit"] is None else f"/{node['limit']}"
        notes = [node["reason"]] if node["reason"] else []
        if node["takes_new"] and node["state"] != "ready":
            notes.append("serves since no node is ready")
        weight = f"{node['weight']:.3g}"
        if node["weight"] != node["whole_weight"]:
            weight += f" of {node['whole_weight']:g}"
        made.add_row(
            *(node["name"], node["address"], state, f"{node['connections']}{limit}", str(node["sources"]), weight),
            *(str(node["failures_total"]), escape("; ".join(notes))),
        )
    show.out().print(made)


def styled(state: str) -> str:
    """A state in its colour."""
    style = _STYLES.get(state, "dim")
    return f"[{style}]{state}[/]"
