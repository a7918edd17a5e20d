"""``farmsync sessions list``: the sessions that were changed last."""

from __future__ import annotations

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.sessions import asking


@click.command("list", short_help="Show the sessions that were changed last.")
@click.argument("prefix", default="", callback=asking.check_prefix)
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many, at most.")
@asking.store
@options.as_json
def command(prefix: str, limit: int, url: str, as_json: bool) -> None:
    """Show the sessions that were changed last, or those of them whose digest begins with PREFIX."""
    with asking.opened(url) as store:
        found = asking.beginning(store, prefix, limit + 1)
    more, found = len(found) > limit, found[:limit]
    if as_json:
        show.print_json({"sessions": [asking.as_json(one) for one in found], "more": more})
        return
    out = show.out()
    if not found:
        out.print("No session lives." if not prefix else f"No session whose digest begins with {prefix} lives.")
        return
    now = show.now()
    made = show.table("SESSION", "VERSION", "SIZE", "CHANGED", "CREATED", "EXPIRES",
                      right=("VERSION", "SIZE", "CHANGED", "CREATED", "EXPIRES"))  # fmt: skip
    for one in found:
        made.add_row(
            *(one.digest.hex()[: asking.SHORT_DIGEST], str(one.version), show.size(one.size)),
            *(asking.ago(one.changed_us, now), asking.ago(one.created_us, now), asking.until(one, now)),
        )
    out.print(made)
    if more:
        out.print(f"There are more than {limit}; see --limit, or `farmsync sessions stats`.")
