"""``farmsync pin``: a node keeps a version."""

from __future__ import annotations

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.versions import full_version
from farmsyncd.core.messages.operating import Done, Pin


@click.command("pin", short_help="Have a node keep a version on its disk.")
@options.node
@options.dataset
@click.argument("version")
@options.data
@options.as_json
def command(node: str, dataset: str, version: str, data: str, as_json: bool) -> None:
    """Have NODE keep VERSION of DATASET on its disk until `farmsync unpin`.

    The first hexadecimal digits of VERSION will do.
    """

    async def talk(operator: Operator) -> str:
        name = await full_version(operator, dataset, version)
        await operator.ask(Pin(node, dataset, name), Done)
        return name

    name = converse(data, talk)
    if as_json:
        show.print_json({"node": node, "dataset": dataset, "version": name})
    else:
        show.out().print(f"[bold]{node}[/] keeps version {show.version(name)} of {dataset}")
