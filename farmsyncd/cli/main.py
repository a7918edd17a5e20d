"""The entry point of ``farmsync``: gathers the commands, and turns every failure into one line and an exit status."""

from __future__ import annotations

import sys

import click

from farmsyncd.cli import (
    cancel,
    check_config,
    completion,
    history,
    pin,
    publish,
    report,
    rollback,
    status,
    unpin,
    wait,
)
from farmsyncd.cli.lb import group as lb
from farmsyncd.cli.sessions import group as sessions
from farmsyncd.cli.show import err
from farmsyncd.edges.release import RELEASE
from farmsyncd.errors import FarmsyncError

USAGE = 64
INTERRUPTED = 130


_HELP = """Make a farm of web servers switch to new data at the same instant.

\b
farmsync publish shop ./site --at "tomorrow 06:00"    schedule a new version
farmsync status                                       who has what, and the countdown
farmsync report shop                                  how far apart the last flip was

Commands ask the data server that --data or FARMSYNC_DATA names, an endpoint such as tcp:127.0.0.1:7420.

\b
Exit status: 0 done, 64 wrong usage, 65 input that cannot be used, 69 something is not available,
75 timed out, 77 not allowed, 78 configuration that cannot be used.
"""


@click.group(help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(RELEASE, prog_name="farmsync")
def farmsync() -> None:
    """All of it: ``farmsync``."""


for _command in (
    *(publish, status, wait, history, report, rollback, cancel, pin, unpin),
    *(check_config, lb, sessions, completion),
):
    farmsync.add_command(_command.command)


def main() -> None:
    """Run the command and leave with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command with these arguments; its exit status."""
    try:
        status = farmsync.main(arguments, prog_name="farmsync", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        hint = f"\nTry '{error.ctx.command_path} --help'." if isinstance(error, click.UsageError) and error.ctx else ""
        return _fail(error.format_message() + hint, USAGE)
    except FarmsyncError as error:
        return _fail(str(error), error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    err().print(f"farmsync: {message}", markup=False, soft_wrap=True)
    return status
