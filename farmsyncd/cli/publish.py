"""``farmsync publish``: read a directory, send what the data server lacks of it, and schedule its activation."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from typing import Any

import attrs
import click
from rich.progress import Progress
from twisted.internet.threads import deferToThread

from farmsyncd.cli import options, show
from farmsyncd.cli.changes import accepted_json, print_accepted
from farmsyncd.cli.forecast import print_forecast
from farmsyncd.cli.operator import Operator, converse
from farmsyncd.cli.times import When
from farmsyncd.cli.upload import upload
from farmsyncd.core import ranges
from farmsyncd.core.messages.content import Lack, Offer
from farmsyncd.core.messages.operating import Accepted, Forecast, Publish
from farmsyncd.core.snapshot import encode_pieces
from farmsyncd.edges.content.tree import Scanned, scan
from farmsyncd.edges.content.treecache import TreeCache
from farmsyncd.errors import BadInput


@attrs.frozen
class _Sent:
    """What was sent to the data server, of how much."""

    files: int
    total_bytes: int
    chunks: int
    sent_bytes: int


class _GivenUpError(Exception):
    """Raised in the thread that reads, since nobody waits for it any more."""


def _directory(_context: click.Context, _parameter: click.Parameter, value: str) -> Path:
    if not value:  # a script's unset variable; Python takes it for the directory that one is in
        raise BadInput("expected a directory for PATH, and found nothing; the one you are in is called '.'")
    return Path(value)


@click.command("publish", short_help="Schedule a directory as a dataset's next version.")
@options.dataset
@click.argument("path", type=click.Path(), callback=_directory)
@options.when
@click.option("--dry-run", is_flag=True, help="Say what would be sent, what changes and who is ready; change nothing.")
@options.data
@options.as_json
def command(dataset: str, path: Path, when: When, dry_run: bool, data: str, as_json: bool) -> None:
    """Make the directory PATH the next version of DATASET, active on every node at the same instant.

    Only what the data server lacks is sent. A version that is pending already is replaced, up to its freeze point.
    """

    async def talk(operator: Operator) -> tuple[Accepted | dict[str, Any], _Sent]:
        with show.progress() as bars:
            scanned = await _read(path, bars)
            version = scanned.manifest.version
            lack = await operator.ask(Offer(version, tuple(encode_pieces(scanned.manifest))), Lack)
            lacking = ranges.read(lack.ranges, len(scanned.manifest.distinct_chunks()))
            sent = _sent(scanned, lacking)
            if dry_run:
                return await operator.answer(Forecast(dataset, version, when.word())), sent
            await upload(operator, scanned, lacking, bars)
        return await operator.ask(Publish(dataset, version, when.word()), Accepted), sent

    answer, sent = converse(data, talk)
    sizes = {"files": sent.files, "bytes": sent.total_bytes, "sent_chunks": sent.chunks, "sent_bytes": sent.sent_bytes}
    if not isinstance(answer, Accepted):
        if as_json:
            show.print_json({**answer, **sizes})
        else:
            print_forecast(dataset, answer, sizes)
    elif as_json:
        show.print_json({**accepted_json(answer), **sizes})
    else:
        print_accepted(answer, as_json=False)
        new = show.size(sent.sent_bytes)
        show.out().print(f"{show.files(sent.files)}, {show.size(sent.total_bytes)}; {new} were new to the data server")


async def _read(path: Path, bars: Progress) -> Scanned:
    task = bars.add_task("reading", total=None)
    given_up = Event()

    def told(_files: int, count: int) -> None:
        if given_up.is_set():
            raise _GivenUpError
        bars.update(task, completed=count)

    try:
        scanned = await deferToThread(scan, path, told, TreeCache.of(_cache_directory(), path))
    finally:
        given_up.set()
    total = scanned.manifest.total_bytes
    bars.update(task, total=total, completed=total)
    return scanned


def _cache_directory() -> Path:
    """Where this user's programs keep what only saves time."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and base.startswith("/") else Path.home() / ".cache") / "farmsync"


def _sent(scanned: Scanned, lacking: list[int]) -> _Sent:
    manifest = scanned.manifest
    chunks = manifest.distinct_chunks()
    files = sum(entry.kind == entry.kind.FILE for entry in manifest.entries)
    return _Sent(files, manifest.total_bytes, len(lacking), sum(chunks[number][1] for number in lacking))
