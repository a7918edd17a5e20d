"""What the demo shows while it runs: each node's wrong clock, what it knows of it, what it has, and the countdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from demo.farm import MEMBERS
from demo.shopper import Shopper
from farmsyncd.cli.show import table, version
from farmsyncd.cli.times import span_shown

_DIGITS = 10  # of versions in the table, so that it fits a terminal of 80 columns


def picture(status: dict[str, Any], shoppers: Sequence[Shopper], places: Mapping[str, str]) -> RenderableType:
    """The farm at this moment: the data server's status, and at which node each shopper's address sticks."""
    dataset = status["datasets"]["shop"]
    coming, active = dataset["next"], dataset["active"]
    if coming:
        left = coming["activates_at_ns"] - status["farm_time_ns"]
        head = f"version {version(coming['version'])} activates in {max(0, left) / 1e9:5.1f} s"
    else:
        head = f"version {version(active['version'])} is active"
    return Group(Text(head, style="bold"), "", _nodes(status), "", _shoppers(shoppers, places))


def _shoppers(shoppers: Sequence[Shopper], places: Mapping[str, str]) -> RenderableType:
    made = table("SHOPPER", "STICKS TO", "IN THE CART", "PAGES SEEN", right=("IN THE CART",))
    for shopper in shoppers:
        pages = ", ".join(f"{count} of {version(name)}" for name, count in list(shopper.pages.items()))
        made.add_row(shopper.address, places.get(shopper.address, "-"), str(shopper.bought), pages or "-")
    return made


def killed(victim: str, carts: int) -> str:
    """What is said when a node is killed that held so many of the carts."""
    held = "one of the carts; its shopper goes" if carts == 1 else f"{carts} of the carts; their shoppers go"
    return f"[bold]Killed[/] {victim} (SIGKILL), which held {held} on:"


def moves(rows: Sequence[tuple[str, int, str, str, int]]) -> RenderableType:
    """Shoppers whose node is gone: who, what was in the cart, at which node; where they are now, and what is in it."""
    made = table("SHOPPER", "WAS AT", "CART", "IS AT", "CART NOW", right=("CART", "CART NOW"))
    for address, before, was_at, is_at, after in rows:
        made.add_row(address, was_at, str(before), is_at, str(after))
    return made


def _nodes(status: dict[str, Any]) -> RenderableType:
    made = table("NODE", "CLOCK WRONG BY", "CORRECTION", "BOUND", "STATE", "ACTIVE", "STAGED",
                 right=("CORRECTION", "BOUND"))  # fmt: skip
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
            version(node["active"])[:_DIGITS],
            version(node["staged"])[:_DIGITS],
        )
    return made
