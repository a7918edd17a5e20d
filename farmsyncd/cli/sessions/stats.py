"""``farmsync sessions stats``: how many there are, and how large."""

from __future__ import annotations

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.sessions import asking


@click.command("stats", short_help="Count the sessions.")
@asking.store
@options.as_json
def command(url: str, as_json: bool) -> None:
    """Count the sessions that live, those that have expired and wait to be removed, and their bytes."""
    with asking.opened(url) as store:
        stats = store.stats()
    if as_json:
        oldest_us = stats.oldest_created_us
        show.print_json(
            {
                "live": stats.live,
                "expired": stats.expired,
                "bytes": stats.state_bytes,
                "largest_bytes": stats.largest_bytes,
                "oldest_created_ns": None if oldest_us is None else oldest_us * 1000,
            }
        )
        return
    out = show.out()
    out.print(f"[bold]{stats.live}[/] {'session lives' if stats.live == 1 else 'sessions live'}")
    if stats.live:
        mean = show.size(stats.state_bytes // stats.live)
        out.print(
            f"  size     {show.size(stats.state_bytes)}, {mean} each, the largest {show.size(stats.largest_bytes)}"
        )
    if stats.oldest_created_us is not None:
        out.print(f"  oldest   created {asking.ago(stats.oldest_created_us, show.now())}")
    out.print(f"  expired  {stats.expired} to be removed")
