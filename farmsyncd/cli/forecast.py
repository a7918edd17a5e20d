"""What ``farmsync publish --dry-run`` prints: what would be sent, what changes, and who is likely to be ready."""

from __future__ import annotations

from typing import Any

from farmsyncd.cli import show

_NAMED = 20  # names of files that are listed of each sort


def print_forecast(dataset: str, forecast: dict[str, Any], sizes: dict[str, int]) -> None:
    """A forecast, for people; nothing has been changed."""
    out = show.out()
    out.print(f"[bold]{dataset}[/] would get version {show.version(forecast['version'])}; nothing has been changed")
    out.print(f"would activate {show.moment(forecast['utc_ns'], show.now())}")
    if forecast["replaces"] is not None:
        out.print(f"would replace the pending version {show.version(forecast['replaces'])}")
    out.print(
        f"{show.files(sizes['files'])}, {show.size(sizes['bytes'])}; "
        f"{show.size(sizes['sent_bytes'])} would be sent to the data server"
    )
    for what, mark in (("added", "+"), ("changed", "~"), ("removed", "-")):
        count, names = forecast[what], forecast[f"{what}_names"]
        out.print(f"{count} {what}")
        for name in names[:_NAMED]:
            out.print(f"  {mark} {name}", markup=False)
        if count > _NAMED:
            out.print(f"  ... and {count - _NAMED} more")
    _print_nodes(forecast["nodes"])


def _print_nodes(nodes: list[dict[str, Any]]) -> None:
    made = show.table("NODE", "READY IN TIME", "WHY")
    for node in nodes:
        made.add_row(node["name"], "[green]likely[/]" if node["likely"] else "[red]unlikely[/]", node["why"])
    show.out().print(made if nodes else "No node follows this dataset yet.")
