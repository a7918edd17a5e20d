"""When the number of workers has changed, sources belong to other workers: their books are written anew.

A crash in between loses nothing: all that the books say is in one book before the first of them is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from twisted.logger import Logger

from farmsyncd.core.sourcebook import Record, Writer
from farmsyncd.errors import LocalError
from farmsyncd.lb.bookfile import BookFile, Reading
from farmsyncd.lb.processes.cbpf import Spread

_PREFIX = "sources."
_ALL = f"{_PREFIX}all"
_SLICE = 10_000
_log = Logger()


def book(state: Path, number: int) -> Path:
    """Where worker ``number`` writes down its sources."""
    return state / f"{_PREFIX}{number}"


def reshuffle(state: Path, spread: Spread) -> None:
    """Have each worker find its own sources in its book, and no other book be there. Nobody may be writing.

    LocalError when that cannot be done.
    """
    found = {path.name: path for path in state.glob(f"{_PREFIX}*") if path.suffix[1:].isdecimal() or path.name == _ALL}
    wanted = {book(state, number).name for number in range(spread.workers)}
    if not found or set(found) == wanted:
        return
    _log.info("sources are given to {workers} workers anew, from {books}", workers=spread.workers, books=sorted(found))
    try:
        records = _read(found.values())
        _write(state / _ALL, records)
        for number in range(spread.workers):
            _write(book(state, number), [one for one in records if spread.worker_of(one[0]) == number])
        for name in {*found, _ALL} - wanted:
            (state / name).unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"writing the sources in {state} anew failed: {error.strerror}") from None


def _read(paths: Iterable[Path]) -> list[Record]:
    """What all of them say, in the order in which it happened: what is said last about a source holds."""
    records: list[Record] = []
    for path in paths:
        reading = Reading(path)
        records += reading.more()
        reading.close()
    records.sort(key=lambda record: record[2])
    last = {record[0]: record for record in records}
    return sorted(last.values(), key=lambda record: record[2])


def _write(path: Path, records: Iterable[Record]) -> None:
    left, writer, file = iter(records), Writer(), BookFile(path)
    file.begin_draft()
    while some := list(islice(left, _SLICE)):
        file.draft(writer.frame(some))
    file.replace()
    file.close()
