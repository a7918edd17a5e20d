"""Sending the chunks that the data server lacks, packed by threads while the connection is kept busy."""

from __future__ import annotations

from collections.abc import Iterator

from rich.progress import Progress
from twisted.internet.threads import deferToThread

from farmsyncd.cli.operator import Operator
from farmsyncd.edges.content.packing import PackedChunk, packed_chunks
from farmsyncd.edges.content.tree import Scanned

_BATCH = 4 * 1024 * 1024  # bytes of chunks, unpacked, that are handed over at once


async def upload(operator: Operator, scanned: Scanned, numbers: list[int], bars: Progress) -> None:
    """Send the chunks with these numbers; returns once they have left, which PUBLISH then confirms.

    Raises BadInput when a file has changed since it was read, and what the data server objected to.
    """
    if not numbers:
        return
    chunks = scanned.manifest.distinct_chunks()
    task = bars.add_task("sending", total=sum(chunks[number][1] for number in numbers))
    packed = packed_chunks(scanned, numbers)
    coming = deferToThread(_take, packed)
    try:
        while batch := await coming:
            coming = deferToThread(_take, packed)
            await operator.pour(chunk.frame() for chunk in batch)
            bars.advance(task, sum(chunk.length for chunk in batch))
    finally:
        # The generator can be closed only while no thread is inside it.
        coming.addErrback(lambda _failure: None)
        if not coming.called:
            await coming
        packed.close()  # type: ignore[attr-defined]


def _take(packed: Iterator[PackedChunk]) -> list[PackedChunk]:
    batch: list[PackedChunk] = []
    size = 0
    for chunk in packed:
        batch.append(chunk)
        size += chunk.length
        if size >= _BATCH:
            break
    return batch
