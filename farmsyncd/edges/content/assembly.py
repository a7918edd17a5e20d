"""A manifest, what this machine has already, and what is brought in, into a complete, verified, durable tree.

:class:`Assembler` blocks, knows no network and is driven from one worker thread::

    assembler = Assembler(staging_path, manifest, [Base(old_manifest, old_path)])
    try:
        assembler.prepare()                     # lays the tree out; takes up what an earlier attempt left
        ask_for(assembler.lacking())            # optional, early: the network works while ...
        assembler.reuse()                       # ... this disk does: copies and links from the bases
        assembler.apply(bundles)                # if the data server has a delta: its parts after the manifest's
        while assembler.lacking():              # numbers of chunks, for CHUNKS
            assembler.take(chunks)              # as they come, many at a time
        assembler.finish()                      # durable and read-only: to be adopted
    finally:
        assembler.close()

Only ``cancel`` and ``progress`` are for other threads. What was written stays when an attempt ends early, and the
next attempt with the same directory verifies it and takes it up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock, local
from typing import Final

import attrs
from twisted.logger import Logger

from farmsyncd.core import delta, parts
from farmsyncd.core.chunks import Buffer, Damaged, Unpacker, digest_of
from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.delta import Bundle
from farmsyncd.core.entries import Entry
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.parts import Shared, Source
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content import durable, leftovers, space
from farmsyncd.edges.content.basetree import Base, BaseTree
from farmsyncd.edges.content.crew import Cancelled, Crew
from farmsyncd.edges.content.growing import GrowingTree
from farmsyncd.edges.content.wanted import Wanted
from farmsyncd.errors import LocalError, Unavailable

_COPIES: Final = 32
_LINKS: Final = 256
_BATCH: Final = 16


@attrs.define
class Progress:
    """Bytes of the new version, and those of them that are in place. Any thread may read it."""

    total: int
    done: int = 0
    _adding: Lock = attrs.field(factory=Lock, repr=False, eq=False)

    def add(self, amount: int) -> None:
        """So many bytes more are in place."""
        with self._adding:
            self.done += amount


def unlimited(_amount: int) -> None:
    """No rate limit: the default for ``throttle``."""


class Assembler:
    """Puts the version ``manifest`` together in ``target``, from ``bases`` (earlier ones preferred) and what comes.

    ``workers`` threads share the work, the caller's one of them. ``throttle`` is called by each of them with the
    number of bytes that it has just read or written on the disk, and may sleep. All methods raise Cancelled after
    :meth:`cancel`, Unavailable when the disk is full, and LocalError when the directory cannot be written.
    """

    log = Logger()

    def __init__(
        self,
        target: Path,
        manifest: Manifest,
        bases: Sequence[Base] = (),
        *,
        workers: int = 2,
        throttle: Callable[[int], None] = unlimited,
    ) -> None:
        self.progress = Progress(manifest.total_bytes)
        self._target = target
        self._manifest = manifest
        self._bases = [BaseTree(base) for base in bases]
        self._crew = Crew(workers)
        self._workers = max(1, workers)
        self._throttle = throttle
        self._own = local()
        self._tree: GrowingTree | None = None
        self._directories: tuple[Entry, ...] = ()
        self._to_link: list[Shared] = []
        self._wanted: Wanted | None = None
        self._sources: dict[bytes, Source] = {}  # where a base should have some of it

    def prepare(self) -> None:
        """Lay the tree out, and take up what an earlier attempt left in the directory, as far as it verifies.

        Raises Unavailable when there will not be enough room on the disk.
        """
        with self._reported():
            plan = parts.plan(self._manifest, [base.manifest for base in self._bases])
            tree = self._tree = GrowingTree(self._target)
            kept = leftovers.take_up(tree, plan, self._bases, self._crew.check)
            remaining = [entry for entry in plan.fresh if entry.path not in kept.complete]
            there = [entry for entry in plan.fresh if entry.path in kept.complete or entry.path in kept.partial]
            space.foresee(space.of_plan(plan, there), self._target)
            for entry in plan.directories:
                tree.make_directory(entry)
            for entry in plan.links:
                tree.make_link(entry)
            self._directories = plan.directories
            self._to_link = [item for item in plan.shared if item.entry.path not in kept.linked]
            self.progress.add(sum(entry.size for entry in there if entry.path in kept.complete))
            self.progress.add(sum(item.entry.size for item in plan.shared if item.entry.path in kept.linked))
            self._wanted = Wanted(tree, self.progress.add)
            self._wanted.add(remaining, kept.partial)
            self._find_sources()

    def lacking(self) -> list[int]:
        """The numbers, in the manifest's distinct chunks, of those that must be brought in.

        Before :meth:`reuse` this leaves out what the bases are expected to have; afterwards it says how it is.
        """
        wanted = self._lacks
        if not wanted:
            return []
        return [
            number
            for number, (digest, _length) in enumerate(self._manifest.distinct_chunks())
            if digest in wanted and digest not in self._sources
        ]

    def reuse(self, bundles: Sequence[Bundle] = ()) -> None:
        """Copy what chunks there are, then link what files there are, from the bases. Once; again does nothing.

        What a base turns out not to have any more is lacking from then on. ``bundles`` are applied meanwhile, see
        :meth:`apply`.
        """
        with self._reported():
            to_link, self._to_link = self._to_link, []
            refused: list[Shared] = []
            # Copies first: the disk writes them, and a second thread does all the rest meanwhile.
            tasks: list[Callable[[], None]] = [partial(self._copy, group) for group in self._copies()]
            tasks += self._applying(bundles)
            tasks += [partial(self._link, group, refused) for group in _groups(to_link)]
            self._crew.share(lambda task: task(), tasks)
            if refused:
                for item in refused:  # a copy from an earlier attempt may be there, and nothing is overwritten
                    self._growing.remove_file(item.entry.path)
                self._lacks.add([item.entry for item in refused], {})
                self._find_sources()
                self._crew.share(self._copy, self._copies())

    def link(self) -> None:
        """Of :meth:`reuse`, only make the links; nothing is copied, and what cannot be linked is left to it."""
        with self._reported():
            to_link, self._to_link = self._to_link, []
            self._crew.share(lambda group: self._link(group, self._to_link), _groups(to_link))

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Verify chunks that came and write them wherever they belong; those not lacking are passed over.

        Raises Damaged, naming the chunk, when one is not what its name says; the others may have been taken.
        """
        size = max(1, min(_BATCH, len(chunks) // self._workers))
        with self._reported():
            self._crew.share(self._take_some, [chunks[at : at + size] for at in range(0, len(chunks), size)])

    def apply(self, bundles: Sequence[Bundle]) -> None:
        """Make chunks from parts of the delta that leads from the first base here, and take them.

        What cannot be made, since the base is damaged, stays lacking. Raises DeltaError for parts that do not fit,
        and Damaged for chunks that do not become what they should.
        """
        with self._reported():
            self._crew.share(lambda task: task(), self._applying(bundles))

    def _applying(self, bundles: Sequence[Bundle]) -> list[Callable[[], None]]:
        """What there is to do to apply ``bundles``."""
        if not bundles:
            return []
        assert self._bases, "a delta leads from a base"
        base = self._bases[0].manifest
        old, new = base.distinct_chunks(), self._manifest.distinct_chunks()
        lengths = [delta.check_bundle(bundle, old, new) for bundle in bundles]
        known = parts.sources([base], {old[number][0] for bundle in bundles for number in bundle.prefix})

        def make(bundle: Bundle, length: int) -> None:
            wanted = [new[number] for number in bundle.chunks]
            if any(digest in self._lacks for digest, _length in wanted):
                prefix = self._prefix([old[number][0] for number in bundle.prefix], known)
                if prefix is not None:
                    self._unbundle(delta.unpack(bundle.data, prefix, length), wanted)

        return [partial(make, bundle, length) for bundle, length in zip(bundles, lengths, strict=True)]

    def finish(self) -> None:
        """Make the tree durable and read-only; :meth:`reuse` is done if it was not. LocalError if chunks lack."""
        self.reuse()
        if self._lacks:
            raise LocalError(
                f"expected all of version {self._manifest.version} before it is finished, and {len(self._lacks)} "
                f"chunks lack: bring them in"
            )
        with self._reported():
            tree = self._growing
            tree.seal(self._directories)
            self._crew.check()
            tree.sync()

    def cancel(self) -> None:
        """Have the method that is running, and every later one, raise Cancelled soon. For any thread."""
        self._crew.cancel()

    def close(self) -> None:
        """Let go of threads and directories; what was written stays. Again does nothing."""
        self._crew.close()
        if self._tree is not None:
            self._tree.close()
        for base in self._bases:
            base.close()

    @property
    def _growing(self) -> GrowingTree:
        assert self._tree is not None, "prepare first"
        return self._tree

    @property
    def _lacks(self) -> Wanted:
        assert self._wanted is not None, "prepare first"
        return self._wanted

    def _find_sources(self) -> None:
        self._sources = parts.sources([base.manifest for base in self._bases], self._lacks) if self._lacks else {}

    def _copies(self) -> list[list[tuple[bytes, Source]]]:
        """The chunks to copy: those of one large file together, since two threads would wait for each other there."""
        found, self._sources = self._sources, {}
        groups: list[list[tuple[bytes, Source]]] = []
        small: list[tuple[bytes, Source]] = []
        by_file: dict[bytes, list[tuple[bytes, Source]]] = {}
        for digest, entry in self._lacks:
            if digest in found:
                (by_file.setdefault(entry.path, []) if len(entry.chunks) > 1 else small).append((digest, found[digest]))
        groups.extend(by_file.values())
        groups.extend(small[at : at + _COPIES] for at in range(0, len(small), _COPIES))
        return groups

    def _copy(self, chunks: Sequence[tuple[bytes, Source]]) -> None:
        for digest, source in chunks:
            self._crew.check()
            data = self._from_base(digest, source)
            if data is not None:
                self._put(digest, data)

    def _from_base(self, digest: bytes, source: Source) -> memoryview | None:
        buffer: memoryview | None = getattr(self._own, "buffer", None)
        if buffer is None:
            buffer = self._own.buffer = memoryview(bytearray(MAX_CHUNK))
        data = self._bases[source.base].read(source, digest, buffer)
        if data is None:
            self.log.warn(
                "{path} of version {version} on this disk is not what it was: its chunk {chunk} is brought in again",
                path=source.path.decode("utf-8", "backslashreplace"),
                version=self._bases[source.base].manifest.version,
                chunk=digest.hex()[:16],
            )
        return data

    def _link(self, group: Sequence[Shared], refused: list[Shared]) -> None:
        self._throttle(0)
        not_linked = self._bases[group[0].base].link_into(self._growing, group)
        self.progress.add(sum(item.entry.size for item in group) - sum(item.entry.size for item in not_linked))
        refused.extend(not_linked)

    def _take_some(self, chunks: Sequence[Chunk]) -> None:
        unpacker: Unpacker | None = getattr(self._own, "unpacker", None)
        if unpacker is None:
            unpacker = self._own.unpacker = Unpacker()
        for chunk in chunks:
            self._crew.check()
            if chunk.digest in self._lacks:
                self._put(chunk.digest, unpacker.unpack(chunk.digest, chunk.codec, chunk.length, chunk.data))

    def _prefix(self, digests: Sequence[bytes], known: dict[bytes, Source]) -> bytes | None:
        """Old chunks, verified and joined; None when the base does not have one of them any more."""
        joined: list[bytes] = []
        for digest in digests:
            data = self._from_base(digest, known[digest])
            if data is None:
                return None
            joined.append(bytes(data))
        return b"".join(joined)

    def _unbundle(self, data: bytes, chunks: Sequence[tuple[bytes, int]]) -> None:
        for (digest, length), piece in zip(chunks, delta.slices(data, [length for _, length in chunks]), strict=True):
            if digest_of(piece) != digest:
                raise Damaged(digest, f"the delta's {length} bytes are others than were published")
            self._put(digest, piece)

    def _put(self, digest: bytes, data: Buffer) -> None:
        self._throttle(self._lacks.put(digest, data))

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what the file system refuses into what callers are promised."""
        self._crew.check()
        try:
            yield
        except OSError as error:
            failure = durable.failure(error, "assembling", self._target)
            if isinstance(failure, Unavailable):
                left = self.progress.total - self.progress.done
                raise Unavailable(
                    f"expected room for {space.readable(left)} more in {self._target}, and "
                    f"{space.readable(space.free(self._target).size)} are free: free some space and try again"
                ) from error
            raise failure from error


def _groups(shared: Sequence[Shared]) -> list[list[Shared]]:
    """Files to link, by where they are and where they go: not too many together, so that threads can share them."""
    groups: dict[tuple[int, bytes, bytes], list[Shared]] = {}
    for item in shared:
        path = item.path
        parent = path.rpartition(b"/")[0]
        new = parent if path is item.entry.path else item.entry.path.rpartition(b"/")[0]
        groups.setdefault((item.base, parent, new), []).append(item)
    return [group[at : at + _LINKS] for group in groups.values() for at in range(0, len(group), _LINKS)]


__all__ = ["Assembler", "Base", "Cancelled", "Progress", "unlimited"]
