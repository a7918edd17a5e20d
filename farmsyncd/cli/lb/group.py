"""Gathers the commands of ``farmsync lb``."""

from __future__ import annotations

import click

from farmsyncd.cli.lb import drain, explain, maint, nodes, ready, sources, status

_HELP = """Look at a balancer and steer it, over its admin socket.

\b
farmsync lb status               the balancer and its nodes
farmsync lb explain 10.0.0.7     why a source goes where it does
farmsync lb drain web1           no new sources for a node

Commands ask the balancer on this machine whose socket --admin or FARMSYNC_LB names.
"""


@click.group("lb", help=_HELP, short_help="Look at a balancer and steer it.")
def command() -> None:
    """All of it: ``farmsync lb``."""


for _one in (status, nodes, sources, explain, drain, ready, maint):
    command.add_command(_one.command)
