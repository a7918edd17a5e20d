"""``farmsync lb status``: a balancer in numbers, and its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.lb.asking import admin, ask
from farmsyncd.cli.lb.nodes import print_nodes


@click.command("status", short_help="Show the balancer and its nodes.")
@admin
@options.as_json
def command(admin: Path, as_json: bool) -> None:
    """Show how many clients and sources the balancer has, and how its nodes stand."""
    status = ask(admin, "status")
    if as_json:
        show.print_json(status)
    else:
        print_status(status)


def print_status(status: dict[str, Any]) -> None:
    """A balancer's status, for people."""
    out = show.out()
    ready = "[green]ready[/]" if status["ready"] else "[red]not ready[/]"
    out.print(f"[bold]{ready}[/]: {status['reason']}")
    if "clients" not in status:
        return  # all workers are just being started anew
    server = {True: "there", False: "away; the farm is as it was known last", None: "not asked"}[status["data_server"]]
    out.print(f"  clients      {status['clients']}, and {status['waiting']} that wait for a node")
    out.print(f"  sources      {status['sources']} remembered, {status['sources_moved_total']} moved so far")
    out.print(f"  data server  {server}")
    if lost := status["timed_out_total"] + status["turned_away_total"]:
        out.print(f"  [red]no node[/]      for {lost} connections so far: they waited too long, or too many did")
    if refused := {reason: count for reason, count in status["proxy_refused_total"].items() if count}:
        told = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in refused.items())
        out.print(f"  [red]refused[/]      {sum(refused.values())} connections without a good PROXY header: {told}")
    if status["nodes"]:
        out.print()
        print_nodes(status["nodes"])
