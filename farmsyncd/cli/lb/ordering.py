"""What ``drain``, ``ready`` and ``maint`` have in common."""

from __future__ import annotations

from pathlib import Path

from farmsyncd.cli import show
from farmsyncd.cli.lb.asking import ask
from farmsyncd.cli.lb.nodes import styled


def order(admin: Path, verb: str, node: str, *, as_json: bool) -> None:
    """Tell the balancer, and what came of it."""
    answer = ask(admin, verb, node)
    if as_json:
        show.print_json(answer)
        return
    reason = f" ({answer['reason']})" if answer["reason"] else ""
    show.out().print(
        f"[bold]{answer['node']}[/] is {_in(answer['state'])}{styled(answer['state'])}{reason}; "
        f"it was {_in(answer['before'])}{answer['before']}, "
        f"and has {answer['connections']} connections"
    )
    if answer["serving"] is None:
        show.err().print("[yellow]no node is left to serve:[/] connections wait, and are closed after a while")
    elif answer["serving"] != "ready":
        show.err().print(f"[yellow]no node is ready:[/] those that are {answer['serving']} serve all")


def _in(state: str) -> str:
    return "in " if state == "maintenance" else ""
