"""``farmsync report``: how far apart a farm's flips were."""

from __future__ import annotations

from typing import Any

import click
from rich.markup import escape

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.times import span_shown
from farmsyncd.core.messages.operating import Report


@click.command("report", short_help="Show how far apart a flip's nodes were.")
@options.dataset
@click.argument("cycle", required=False, type=click.IntRange(min=1))
@options.data
@options.as_json
def command(dataset: str, cycle: int | None, data: str, as_json: bool) -> None:
    """Show the flip report of a CYCLE of DATASET, by default of the newest that has been activated."""

    async def talk(operator: Operator) -> Any:
        return await operator.answer(Report(dataset, cycle))

    report = converse(data, talk)
    if as_json:
        show.print_json(report)
    else:
        print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """A flip report, for people: the spread first, then each node with its lateness and error bound."""
    out = show.out()
    out.print(f"[bold]{report['dataset']}[/] cycle {report['cycle']}, version {show.version(report['version'])}")
    nodes = report["nodes"]
    if nodes:
        bound = max(node["error_bound_ns"] for node in nodes)
        among = f"between the first and the last of {len(nodes)} nodes, each" if len(nodes) > 1 else "with one node,"
        out.print(f"spread  [bold]{_micro(report['spread_ns'])}[/] {among} known to ±{_micro(bound)} or better")
        made = show.table("NODE", "LATENESS", "BOUND", "REMARK", right=("LATENESS", "BOUND"))
        for node in sorted(nodes, key=lambda node: node["lateness_ns"]):
            made.add_row(
                node["name"],
                _lateness(node["lateness_ns"]),
                f"±{_micro(node['error_bound_ns'])}",
                escape(node.get("detail", "")),
            )
        out.print(made)
    for name in report["missing"]:
        out.print(f"[red]{name} has not reported this flip[/]")
    if not nodes and not report["missing"]:
        out.print("No node has reported this flip.")


def _micro(ns: int) -> str:
    return f"{ns / 1_000:,.0f} µs"


def _lateness(ns: int) -> str:
    return f"{ns / 1_000:+,.0f} µs" if abs(ns) < 1_000_000_000 else f"+{span_shown(ns)}"
