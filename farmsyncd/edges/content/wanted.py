"""What a growing tree lacks, and where each of its chunks belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from farmsyncd.core.chunks import Buffer
from farmsyncd.core.entries import Entry
from farmsyncd.core.parts import Place
from farmsyncd.edges.content.growing import GrowingTree


class Wanted:
    """The chunks that are to be written into ``tree``. ``wrote`` is told of bytes that are in place.

    :meth:`put` may be called from several threads at once, everything else from one, while no :meth:`put` runs.
    """

    def __init__(self, tree: GrowingTree, wrote: Callable[[int], None]) -> None:
        self._tree = tree
        self._wrote = wrote
        self._places: dict[bytes, list[Place]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, digest: object) -> bool:
        return digest in self._places

    def __iter__(self) -> Iterator[tuple[bytes, Entry]]:
        """Each chunk, and a file that it belongs to; those of one file together and in order, as far as may be."""
        return ((digest, places[0][0]) for digest, places in self._places.items())

    def add(self, entries: Sequence[Entry], there: Mapping[bytes, frozenset[int]]) -> None:
        """Files to be written: empty ones at once, large ones laid out, and their chunks wanted from now on.

        ``there`` has the offsets of good chunks in files, by path, that an earlier attempt laid out.
        """
        for entry in entries:
            if not entry.chunks:
                self._tree.write_whole(entry, b"")
            elif len(entry.chunks) == 1:
                self._places.setdefault(entry.chunks[0], []).append((entry, 0))
            else:
                self._add_large(entry, there.get(entry.path))

    def _add_large(self, entry: Entry, good: frozenset[int] | None) -> None:
        offset, missing = 0, 0
        for digest, length in zip(entry.chunks, entry.lengths, strict=True):
            if good is None or offset not in good:
                self._places.setdefault(digest, []).append((entry, offset))
                missing += 1
            else:
                self._wrote(length)
            offset += length
        self._tree.lay_out(entry, missing, there=good is not None)

    def put(self, digest: bytes, data: Buffer) -> int:
        """Write a verified chunk wherever it belongs; the bytes written, none if it is not wanted (any more)."""
        places = self._places.pop(digest, None)  # whoever takes it off writes it
        if places is None:
            return 0
        written = 0
        try:
            while places:
                entry, offset = places[-1]
                if len(entry.chunks) == 1:
                    self._tree.write_whole(entry, data)
                else:
                    self._tree.write_at(entry, offset, data)
                places.pop()
                written += len(data)
        finally:
            if places:
                self._places[digest] = places
            self._wrote(written)
        return written
