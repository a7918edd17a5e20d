"""``farmsync sessions revoke``: sessions end."""

from __future__ import annotations

import sys

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.sessions import asking
from farmsyncd.sessions.stores.base import Listed, Store


@click.command("revoke", short_help="End sessions.")
@click.argument("digests", metavar="[DIGEST]...", nargs=-1, callback=asking.check_prefix)
@click.option("--all", "everyone", is_flag=True, help="All sessions.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@asking.store
@options.as_json
def command(digests: tuple[str, ...], everyone: bool, yes: bool, url: str, as_json: bool) -> None:
    """End the sessions whose digests begin with DIGEST: their clients are strangers from then on.

    Nodes that have a copy in memory see it at once where the database tells them, and within their `revalidate-after`
    in any case.
    """
    if bool(digests) == everyone or not all(digests):
        raise click.UsageError("expected the beginnings of digests, or --all, and one of the two only")
    with asking.opened(url) as store:
        if everyone:
            found = store.find(b"", store.stats().live + 1_000)
        else:
            found = list({one.digest: one for one in [asking.the_one(store, prefix) for prefix in digests]}.values())
        if found and not yes and not _sure(found, everyone):
            raise click.Abort
        ended = _end(store, found)
    gone = len(found) - ended
    if as_json:
        show.print_json({"revoked": ended, "gone": gone})
        return
    had = f"; {gone} had ended before" if gone else ""
    show.out().print(f"{ended} session{'' if ended == 1 else 's'} revoked{had}")


def _sure(found: list[Listed], everyone: bool) -> bool:
    if not _asked():
        raise click.UsageError("expected --yes, since nobody can be asked here")
    err, now = show.err(), show.now()
    if everyone:
        return click.confirm(f"End all {len(found)} sessions?", err=True)
    for one in found:
        err.print(f"  {one.digest.hex()[: asking.SHORT_DIGEST]}  changed {asking.ago(one.changed_us, now)}")
    return click.confirm("End this session?" if len(found) == 1 else f"End these {len(found)} sessions?", err=True)


def _asked() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def _end(store: Store, found: list[Listed]) -> int:
    """How many of them ended now."""
    ended = 0
    with show.progress() as bars:
        bar = bars.add_task("revoking", total=len(found)) if len(found) > 100 else None
        for one in found:
            ended += store.delete(one.digest)
            if bar is not None:
                bars.advance(bar)
    return ended
