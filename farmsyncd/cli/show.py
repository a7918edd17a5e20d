"""How answers look: aligned tables and progress bars for a terminal, stable JSON for scripts.

Colour and bars appear only on a terminal; what a script reads goes to standard output, bars and remarks to standard
error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from farmsyncd.cli.times import LocalZone, from_ns, shown, span_shown

SHORT_VERSION = 12  # hexadecimal digits of a version that people are shown; any unambiguous beginning is understood
_GAP = 2  # columns between two of a table's; with more, `farmsync status` would not fit a terminal of 80
_WIDEST = 400  # columns of a table


def out() -> Console:
    """Where answers go. Nothing is folded or cut to fit a terminal: scripts and people read whole lines."""
    return Console(highlight=False, width=_WIDEST, soft_wrap=True)


def err() -> Console:
    """Where remarks, progress and errors go."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output, its keys in the order given."""
    out().out(json.dumps(value, indent=2, ensure_ascii=False))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table without lines, those of its columns that are named in ``right`` aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def version(name: str | None) -> str:
    """A version as people are shown it."""
    return name[:SHORT_VERSION] if name else "-"


def moment(utc_ns: int, now: datetime) -> str:
    """A moment in local time and UTC, and how far away it is."""
    when = from_ns(utc_ns)
    distance = utc_ns - int(now.timestamp() * 1_000_000) * 1_000
    away = f"in {span_shown(distance)}" if distance >= 0 else f"{span_shown(-distance)} ago"
    return f"{shown(when, now.tzinfo)}, {away}"


def now() -> datetime:
    """The present moment in the user's zone, which follows ``TZ``."""
    return datetime.now(LocalZone())


def size(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:.1f} TB"


def files(count: int) -> str:
    """A number of files for people."""
    return "1 file" if count == 1 else f"{count} files"


@contextmanager
def progress() -> Iterator[Progress]:
    """Bars for long work, on standard error; nothing at all when that is no terminal."""
    bars = Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=err(),
        transient=True,
        disable=not err().is_terminal,
    )
    with bars:
        yield bars
