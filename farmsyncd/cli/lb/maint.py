"""``farmsync lb maint``: a node gets nothing."""

from __future__ import annotations

from pathlib import Path

import click

from farmsyncd.cli import options
from farmsyncd.cli.lb.asking import admin
from farmsyncd.cli.lb.ordering import order


@click.command("maint", short_help="A node gets nothing.")
@options.node
@admin
@options.as_json
def command(node: str, admin: Path, as_json: bool) -> None:
    """Send nothing to NODE, whatever happens: its sources move at their next connection. Open connections go on."""
    order(admin, "maint", node, as_json=as_json)
