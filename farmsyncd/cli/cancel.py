"""``farmsync cancel``: the pending version will not be activated."""

from __future__ import annotations

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.core.messages.operating import Cancel, Cancelled


@click.command("cancel", short_help="Drop the pending version, before its freeze point.")
@options.dataset
@options.data
@options.as_json
def command(dataset: str, data: str, as_json: bool) -> None:
    """Drop the version of DATASET that is waiting for its activation, which must not be frozen yet."""

    async def talk(operator: Operator) -> Cancelled:
        return await operator.ask(Cancel(dataset), Cancelled)

    cancelled = converse(data, talk)
    if as_json:
        show.print_json({"dataset": dataset, "cycle": cancelled.cycle, "version": cancelled.version})
    else:
        version = show.version(cancelled.version)
        show.out().print(f"[bold]{dataset}[/] cycle {cancelled.cycle}, version {version}, will not be activated")
