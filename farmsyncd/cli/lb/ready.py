"""``farmsync lb ready``: a node is used as usual again."""

from __future__ import annotations

from pathlib import Path

import click

from farmsyncd.cli import options
from farmsyncd.cli.lb.asking import admin
from farmsyncd.cli.lb.ordering import order


@click.command("ready", short_help="A node is used as usual again.")
@options.node
@admin
@options.as_json
def command(node: str, admin: Path, as_json: bool) -> None:
    """Use NODE as usual again, after `drain` or `maint`. Sources that were moved from it stay where they are."""
    order(admin, "ready", node, as_json=as_json)
