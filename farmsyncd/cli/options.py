"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from farmsyncd.cli import times
from farmsyncd.cli.show import now
from farmsyncd.cli.times import When
from farmsyncd.core import words
from farmsyncd.errors import BadInput

Decorated = Callable[..., Any]

data = click.option(
    "--data",
    envvar="FARMSYNC_DATA",
    required=True,
    metavar="ENDPOINT",
    show_envvar=True,
    help="The data server, as a Twisted endpoint: tcp:127.0.0.1:7420.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def when(command: Decorated) -> Decorated:
    """``--at``, ``--in`` and ``--now``, of which exactly one must be given; arrives as the argument ``when``."""

    def chosen(*args: Any, at: str | None, in_: str | None, now_: bool, **kwargs: Any) -> Any:
        given = [option for option, value in (("--at", at), ("--in", in_), ("--now", now_)) if value]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise click.UsageError(f"expected one of --at TIME, --in SECONDS and --now, and found {found}")
        return command(*args, when=_when(at, in_), **kwargs)

    chosen.__name__, chosen.__doc__ = command.__name__, command.__doc__
    chosen.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("--now", "now_", is_flag=True, help="As soon as the nodes can follow."),
        click.option("--in", "in_", metavar="SECONDS", help="After this long: 90, 90s or 1h30m."),
        click.option("--at", metavar="TIME", help=f"At this time: {times.FORMS}."),
    ):
        chosen = option(chosen)
    return chosen


def _when(at: str | None, in_: str | None) -> When:
    if at is not None:
        return times.read_time(at, now())
    if in_ is not None:
        return When("in", times.read_span(in_))
    return When("now")


def _name(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not words.is_name(value):
        raise BadInput(f"expected {words.NAME_RULE} for {parameter.make_metavar(_context)}, and found {value!r}")
    return value


dataset = click.argument("dataset", callback=_name)
node = click.argument("node", callback=_name)
