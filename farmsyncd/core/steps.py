"""Which old chunks new ones are likely to resemble: what a delta is made of, worked out from two manifests alone.

A changed file resembles the file of that name before. Within a large one, the chunks between two that did not change
resemble those that were between the same two; so a step is small even where the file is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

import attrs

from farmsyncd.core.delta import MAX_NEW, MAX_OLD
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.snapshot import Manifest

_TOGETHER: Final = 8 * 1024 * 1024
"""Bytes of old chunks up to which small steps are made one: more would only be harder to search."""

_AROUND: Final = 1024 * 1024
"""Bytes before and after the same place in the old file that are searched too."""


@attrs.frozen
class Step:
    """New chunks and the old ones that they are likely to resemble, by their numbers in their manifests."""

    new: tuple[int, ...]
    old: tuple[int, ...]


@attrs.frozen
class _Numbering:
    """A manifest's distinct chunks: their numbers by digest, and their lengths by number."""

    numbers: dict[bytes, int]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> _Numbering:
        chunks = manifest.distinct_chunks()
        return cls({digest: number for number, (digest, _) in enumerate(chunks)}, tuple(length for _, length in chunks))

    def size(self, numbers: Iterable[int]) -> int:
        return sum(self.lengths[number] for number in numbers)


def steps(old: Manifest, new: Manifest) -> tuple[list[Step], Step]:
    """The steps that lead to the new chunks which have a predecessor, and one step, from nothing, to all others."""
    before, after = _Numbering.of(old), _Numbering.of(new)
    files = {entry.path: entry for entry in old.entries if entry.kind is Kind.FILE}
    taken: set[int] = set()
    found: list[Step] = []
    alone: list[int] = []
    for entry in new.entries:
        was = files.get(entry.path)
        index: dict[bytes, int] | None = None
        for start, stop in _runs(entry, before.numbers):
            numbers = [number for digest in entry.chunks[start:stop] if (number := after.numbers[digest]) not in taken]
            taken.update(numbers)
            if was is None or not was.chunks:
                alone.extend(numbers)
            elif numbers:
                if index is None:
                    index = {digest: at for at, digest in reversed(list(enumerate(was.chunks)))}
                first, last = _between(entry, index, len(was.chunks), start, stop)
                base = [before.numbers[digest] for digest in was.chunks[first:last]]
                found.extend(_pieces(numbers, base, after, before))
    return list(_together(found, after, before)), Step(tuple(alone), ())


def _runs(entry: Entry, known: dict[bytes, int]) -> Iterator[tuple[int, int]]:
    """The stretches of a file's chunks that are not known, as ranges of their indexes."""
    for is_known, indexes in groupby(range(len(entry.chunks)), lambda index: entry.chunks[index] in known):
        if not is_known:
            run = list(indexes)
            yield run[0], run[-1] + 1


def _between(entry: Entry, was: dict[bytes, int], count: int, start: int, stop: int) -> tuple[int, int]:
    """Which of its old chunks stood where ``start`` to ``stop`` of a file are, by the neighbours that stayed.

    ``was`` says where each of the ``count`` old chunks was.
    """
    first = was.get(entry.chunks[start - 1], -1) + 1 if start else 0
    last = was.get(entry.chunks[stop], count) if stop < len(entry.chunks) else count
    if first < last:
        return first, last
    # Nothing was taken away here, or the file was put into another order: the neighbours are the best guess.
    return max(0, first - 1), min(first + 1, count)


def _pieces(new: Sequence[int], old: Sequence[int], after: _Numbering, before: _Numbering) -> Iterator[Step]:
    """A long stretch as steps that fit a bundle, each with the old chunks from about the same place."""
    piece: list[int] = []
    begins = at = 0
    for number in new:
        length = after.lengths[number]
        if piece and at + length - begins > MAX_NEW:
            yield Step(tuple(piece), _around(old, before, begins, at))
            piece, begins = [], at
        piece.append(number)
        at += length
    yield Step(tuple(piece), _around(old, before, begins, at))


def _around(old: Sequence[int], before: _Numbering, begins: int, ends: int) -> tuple[int, ...]:
    """Those old chunks that lie near the bytes from ``begins`` to ``ends``, as many as may be."""
    chosen: list[int] = []
    at = total = 0
    for number in old:
        length = before.lengths[number]
        if at + length > begins - _AROUND and at < ends + _AROUND and number not in chosen:
            if total + length > MAX_OLD:
                break
            chosen.append(number)
            total += length
        at += length
    return tuple(chosen)


def _together(found: Iterable[Step], after: _Numbering, before: _Numbering) -> Iterator[Step]:
    """Small steps made one, as long as they fit: one frame of zstd costs less than many."""
    new: list[int] = []
    old: dict[int, None] = {}
    for step in found:
        more = [number for number in step.old if number not in old]
        if new and (
            after.size(new) + after.size(step.new) > MAX_NEW or before.size(old) + before.size(more) > _TOGETHER
        ):
            yield Step(tuple(new), tuple(old))
            new, old = [], {}
        new.extend(step.new)
        old.update(dict.fromkeys(step.old))
    if new:
        yield Step(tuple(new), tuple(old))
