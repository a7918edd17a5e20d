"""What the demo shows while it runs: each node's wrong clock, what it knows of it, what it has, and the countdown."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from demo.farm import MEMBERS
from demo.shopper import Shopper
from farmsyncd.cli.show import table, version
from farmsyncd.cli.times import span_shown


def picture(status: dict[str, Any], shopper: Shopper) -> RenderableType:
    """The farm at this moment, from the data server's status."""
    dataset = status["datasets"]["shop"]
    coming, active = dataset["next"], dataset["active"]
    if coming:
        left = coming["activates_at_ns"] - status["farm_time_ns"]
        head = f"version {version(coming['version'])} activates in {max(0, left) / 1e9:5.1f} s"
    else:
        head = f"version {version(active['version'])} is active"
    pages = ", ".join(f"{count} from {version(name)}" for name, count in shopper.pages.items())
    return Group(Text(head, style="bold"), "", _nodes(status), "", f"pages through the balancer: {pages or 'none yet'}")


def _nodes(status: dict[str, Any]) -> RenderableType:
    made = table("NODE", "CLOCK IS WRONG BY", "CORRECTION FOUND", "KNOWN TO", "STATE", "ACTIVE", "STAGED",
                 right=("CORRECTION FOUND", "KNOWN TO"))  # fmt: skip
    nodes = {node["name"]: node for node in status["nodes"]}
    for member in MEMBERS:
        node = nodes.get(member.name)
        if node is None:
            made.add_row(member.name, member.shown(), "-", "-", "joining", "-", "-")
            continue
        offset, bound = node["offset_ns"], node["error_bound_ns"]
        made.add_row(
            member.name,
            member.shown(),
            "-" if offset is None else span_shown(offset),
            "-" if bound is None else f"±{span_shown(bound)}",
            node["state"],
            version(node["active"]),
            version(node["staged"]),
        )
    return made
