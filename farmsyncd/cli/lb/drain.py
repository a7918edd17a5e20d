"""``farmsync lb drain``: a node keeps its sources and gets no new ones."""

from __future__ import annotations

from pathlib import Path

import click

from farmsyncd.cli import options
from farmsyncd.cli.lb.asking import admin
from farmsyncd.cli.lb.ordering import order


@click.command("drain", short_help="A node keeps its sources and gets no new ones.")
@options.node
@admin
@options.as_json
def command(node: str, admin: Path, as_json: bool) -> None:
    """Have NODE keep its sources and get no new ones: what it has runs out, and nobody is moved."""
    order(admin, "drain", node, as_json=as_json)
