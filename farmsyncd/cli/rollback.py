"""``farmsync rollback``: back to an earlier version, as a cycle of its own."""

from __future__ import annotations

import click

from farmsyncd.cli import options
from farmsyncd.cli.changes import print_accepted
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.times import When
from farmsyncd.cli.versions import full_version
from farmsyncd.core.messages.operating import Accepted, Rollback


@click.command("rollback", short_help="Return to an earlier version.")
@options.dataset
@click.option(
    "--to", metavar="VERSION", help="The version to return to; its first hexadecimal digits will do. [the one before]"
)
@options.when
@options.data
@options.as_json
def command(dataset: str, to: str | None, when: When, data: str, as_json: bool) -> None:
    """Schedule a return of DATASET to an earlier version, which the data server must still have."""

    async def talk(operator: Operator) -> Accepted:
        version = None if to is None else await full_version(operator, dataset, to)
        return await operator.ask(Rollback(dataset, version, when.word()), Accepted)

    print_accepted(converse(data, talk), as_json)
