"""``farmsync history``: what was active when."""

from __future__ import annotations

from typing import Any

import click

from farmsyncd.cli import options, show
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.times import from_ns, shown
from farmsyncd.core.messages.operating import History


@click.command("history", short_help="List a dataset's cycles.")
@options.dataset
@options.data
@options.as_json
def command(dataset: str, data: str, as_json: bool) -> None:
    """List the cycles of DATASET, the newest first: what was or will be active, and from when."""

    async def talk(operator: Operator) -> Any:
        return await operator.answer(History(dataset))

    history = converse(data, talk)
    if as_json:
        show.print_json(history)
        return
    zone = show.now().tzinfo
    made = show.table("CYCLE", "VERSION", "OUTCOME", "ACTIVATION", right=("CYCLE",))
    for cycle in history["cycles"]:
        when = shown(from_ns(cycle["utc_ns"]), zone)
        made.add_row(str(cycle["cycle"]), show.version(cycle["version"]), cycle["outcome"], when)
    show.out().print(made)
