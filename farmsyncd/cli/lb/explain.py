"""``farmsync lb explain``: why a source goes where it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from farmsyncd.cli import options, show
from farmsyncd.cli.lb.asking import admin, ask
from farmsyncd.cli.lb.nodes import styled
from farmsyncd.cli.times import span_shown


@click.command("explain", short_help="Say why a source goes where it does.")
@click.argument("source")
@admin
@options.as_json
def command(source: str, admin: Path, as_json: bool) -> None:
    """Say where the next connection from the address SOURCE goes, what sent it there, and why not to the others."""
    answer = ask(admin, "explain", source)
    if as_json:
        show.print_json(answer)
    else:
        print_explanation(answer)


def print_explanation(answer: dict[str, Any]) -> None:
    """An explanation, for people."""
    out = show.out()
    out.print(f"[bold]{answer['source']}[/] goes to {' or '.join(answer['goes_to']) or 'no node'}: {answer['because']}")
    if (entry := answer["entry"]) is not None:
        came = f" from {entry['former']}" if entry["former"] else ""
        out.print(f"  it came to {entry['node']}{came} {span_shown(entry['since_ago_ns'])} ago: {entry['why']}")
        if entry["connections"]:
            out.print(f"  it has {entry['connections']} connections open")
        else:
            out.print(f"  its last connection ended {span_shown(entry['used_ago_ns'])} ago")
    if not answer["nodes"]:
        return
    made = show.table("NODE", "STATE", "CONNECTIONS", "WEIGHT", "LOAD", "A NEW SOURCE",
                      right=("CONNECTIONS", "WEIGHT", "LOAD"))  # fmt: skip
    for node in answer["nodes"]:
        limit = "" if node["limit"] is None else f"/{node['limit']}"
        made.add_row(
            *(node["name"], styled(node["state"]), f"{node['connections']}{limit}", f"{node['weight']:.3g}"),
            *(f"{node['load']:.3g}", escape(node["verdict"])),
        )
    out.print()
    out.print(made)
