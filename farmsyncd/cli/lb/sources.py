"""``farmsync lb sources``: who is remembered, and with which node."""

from __future__ import annotations

from pathlib import Path

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.lb.asking import admin, ask
from farmsyncd.cli.times import span_shown


@click.command("sources", short_help="Show the sources that came last.")
@click.option("--count", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many, at most.")
@admin
@options.as_json
def command(count: int, admin: Path, as_json: bool) -> None:
    """Show the sources that came last, the node of each, and what sent it there."""
    answer = ask(admin, "sources", str(count))
    if as_json:
        show.print_json(answer)
        return
    out = show.out()
    made = show.table("SOURCE", "NODE", "OPEN", "USED", "SINCE", "WHY", right=("OPEN", "USED", "SINCE"))
    for one in answer["sources"]:
        why = one["why"] + (f" ({one['former']})" if one["former"] else "")
        used = "now" if one["connections"] else f"{span_shown(one['used_ago_ns'])} ago"
        since = f"{span_shown(one['since_ago_ns'])} ago"
        made.add_row(one["source"], one["node"], str(one["connections"]), used, since, why)
    out.print(made)
    if answer["known"] > len(answer["sources"]):
        out.print(f"{answer['known']} sources are remembered in all.")
