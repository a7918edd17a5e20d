"""Deltas: made once by the data server, when a version is published, and sent to every node as they lie.

A delta file holds DELTA frames. It has the new manifest, as a difference to the old one, and those of the new chunks
for which a difference pays. The rest is asked for as chunks, unless it is so little that it had better come along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs

from farmsyncd.core import delta, wire
from farmsyncd.core.delta import MAX_NEW, Bundle
from farmsyncd.core.messages.content import Delta
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.steps import Step, steps
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.crew import Crew
from farmsyncd.errors import LocalError

_PAYS: Final = 0.9
_ALONG: Final = MAX_NEW
"""Bytes of new chunks without any predecessor that come along at most."""
_MOST_NEW: Final = 128 * 1024 * 1024
"""Bytes of new chunks that are looked at, at some 20 MB/s: a publication waits for it."""
_MOST: Final = 64 * 1024 * 1024
"""Bytes of a delta, about; it is put together in memory."""


class _Sized(Protocol):
    @property
    def length(self) -> int: ...


class Chunks(Protocol):
    """What is asked of a chunk store."""

    def read(self, digest: bytes) -> bytes:
        """The verified bytes of a chunk. Raises LocalError when it is not to be had."""

    def frames(self, digests: Iterable[bytes]) -> Sequence[_Sized]:
        """What would be sent in place of a difference. Raises LocalError when a chunk is not to be had."""


@attrs.frozen
class DeltaFile:
    """A delta on the disk, from version ``old`` to ``new``: ``count`` frames of ``size`` bytes together."""

    old: str
    new: str
    path: Path
    count: int
    size: int


def make(old: Manifest, new: Manifest, store: Chunks, path: Path, workers: int = 2) -> DeltaFile | None:
    """Make the delta from ``old`` to ``new`` as the file ``path``, in one step and durably.

    None if the versions are the same. Chunks that ``store`` cannot read are left out. Raises Unavailable when the
    disk is full, and LocalError when the file cannot be written.
    """
    if old.version == new.version:
        return None
    parts: list[delta.Part] = [*delta.manifest_parts(old, new), *_bundles(old, new, store, workers)]
    frames = [
        piece
        for index, part in enumerate(parts)
        for piece in wire.pieces(Delta(new.version, index, len(parts), delta.encode_part(part)).frame())
    ]
    durable.write_file(path, *frames)
    return DeltaFile(old.version, new.version, path, len(parts), sum(map(len, frames)))


def _bundles(old: Manifest, new: Manifest, store: Chunks, workers: int) -> list[Bundle]:
    """What pays of what could be packed, in its order, up to the limits."""
    planned = _planned(old, new)
    before, after = old.distinct_chunks(), new.distinct_chunks()
    made: dict[int, Bundle] = {}

    def bundle(item: tuple[int, Step]) -> None:
        index, step = item
        if sum(len(done.data) for done in list(made.values())) > _MOST:
            return
        digests = [after[number][0] for number in step.new]
        try:
            prefix = b"".join(store.read(before[number][0]) for number in step.old)
            data = b"".join(map(store.read, digests))
            instead = sum(extent.length for extent in store.frames(digests))
        except LocalError:  # the store has said what is wrong; nodes will ask for these chunks, and be told
            return
        packed = delta.pack(data, prefix)
        if not step.old or len(packed) < instead * _PAYS:
            made[index] = Bundle(step.new, step.old, packed)

    crew = Crew(workers)
    try:
        crew.share(bundle, list(enumerate(planned)))
    finally:
        crew.close()
    return [made[index] for index in sorted(made)]


def _planned(old: Manifest, new: Manifest) -> list[Step]:
    planned, alone = steps(old, new)
    lengths = [length for _digest, length in new.distinct_chunks()]
    chosen: list[Step] = []
    total = 0
    for step in planned:
        total += sum(lengths[number] for number in step.new)
        if total > _MOST_NEW:
            break
        chosen.append(step)
    if alone.new and sum(lengths[number] for number in alone.new) <= _ALONG:
        chosen.append(alone)
    return chosen
