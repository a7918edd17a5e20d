"""Gathers the commands of ``farmsync sessions``."""

from __future__ import annotations

import click

from farmsyncd.cli.sessions import list as listing
from farmsyncd.cli.sessions import revoke, show, stats

_HELP = """Look at the sessions of web applications, and end some.

\b
farmsync sessions list                 the sessions that were changed last
farmsync sessions show 3f9a            what is in one
farmsync sessions revoke 3f9a          end one: its shopper is a stranger from then on

A session is named by the beginning of its digest, as it is in logs. Its id is nowhere but in its client's cookie.
Commands ask the database that --store or FARMSYNC_SESSIONS names.
"""


@click.group("sessions", help=_HELP, short_help="Look at sessions of web applications, and end some.")
def command() -> None:
    """All of it: ``farmsync sessions``."""


for _one in (listing, show, revoke, stats):
    command.add_command(_one.command)
