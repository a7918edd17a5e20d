"""``farmsync unpin``: a node keeps a dataset's versions no longer than others do."""

from __future__ import annotations

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.core.messages.operating import Done, Unpin


@click.command("unpin", short_help="Drop a node's pins.")
@options.node
@options.dataset
@options.data
@options.as_json
def command(node: str, dataset: str, data: str, as_json: bool) -> None:
    """Drop all pins of NODE in DATASET."""

    async def talk(operator: Operator) -> None:
        await operator.ask(Unpin(node, dataset), Done)

    converse(data, talk)
    if as_json:
        show.print_json({"node": node, "dataset": dataset})
    else:
        show.out().print(f"[bold]{node}[/] has no pins in {dataset}")
