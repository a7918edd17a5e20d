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

Only :meth:`Assembler.cancel` and ``progress`` are for other threads. What was written stays when an attempt ends
early, and the next attempt with the same directory verifies it and takes it up.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, local
from typing import Final, TypeVar

import attrs

from farmsyncd.core import delta, parts
from farmsyncd.core.chunks import Buffer, Damaged, Unpacker, digest_of
from farmsyncd.core.cutting import MAX_CHUNK
from farmsyncd.core.entries import Entry
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.parts import Place, Shared, Source
from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content import durable, leftovers
from farmsyncd.edges.content.basetree import Base, BaseTree
from farmsyncd.edges.content.growing import GrowingTree
from farmsyncd.errors import LocalError

T = TypeVar("T")
_COPIES: Final = 16
"""Chunks that one task copies: a few of them to a file keep the disk's queue filled."""
_LINKS: Final = 256


class Cancelled(LocalError):
    """The assembly was given up by whoever ordered it."""


@attrs.define
class Progress:
    """Bytes of the new version that are in place, and of it all. Any thread may read it."""

    total: int
    done: int = 0


def unlimited(_amount: int) -> None:
    """No rate limit: the default for ``throttle``."""


class Assembler:
    """Puts the version ``manifest`` together in ``target``, from ``bases`` (earlier ones preferred) and what comes.

    ``workers`` threads share the work, the caller's one of them. ``throttle`` is called with the number of bytes
    after each piece of work on the disk and may sleep. All methods but ``cancel`` raise Cancelled after it,
    Unavailable when the disk is full, and LocalError when the directory cannot be written.
    """

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
        self._given = tuple(bases)
        self._workers = max(1, workers)
        self._throttle = throttle
        self._cancelled = Event()
        self._lock = Lock()
        self._own = local()
        self._pool: ThreadPoolExecutor | None = None
        self._tree: GrowingTree | None = None
        self._bases: dict[int, BaseTree] = {}
        self._to_link: tuple[Shared, ...] = ()
        self._directories: tuple[Entry, ...] = ()
        self._wanted: dict[bytes, list[Place]] = {}
        self._not_in_base: set[bytes] = set()

    def prepare(self) -> None:
        """Lay the tree out, and take up what an earlier attempt left in the directory, as far as it verifies."""

    def lacking(self) -> list[int]:
        """The numbers, in the manifest's distinct chunks, of those that must be brought in.

        Before :meth:`reuse` this leaves out what the bases are expected to have; afterwards it says how it is.
        """

    def reuse(self) -> None:
        """Copy what chunks there are, then link what files there are, from the bases. Once; again does nothing.

        What a base turns out not to have any more is lacking from then on.
        """

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Verify chunks that came and write them wherever they belong; those not lacking are passed over.

        Raises Damaged, naming the chunk, when one is not what its name says; the others may have been taken.
        """

    def apply(self, bundles: Sequence[delta.Bundle]) -> None:
        """Make chunks from parts of the delta that leads from the first base here, and take them.

        What cannot be made, since the base is damaged, stays lacking. Raises DeltaError for parts that do not fit.
        """

    def finish(self) -> None:
        """Make the tree durable and read-only; :meth:`reuse` is done if it was not. LocalError if chunks lack."""

    def cancel(self) -> None:
        """Have the method that is running, and every later one, raise Cancelled soon. For any thread."""
        self._cancelled.set()

    def close(self) -> None:
        """Let go of threads and directories; what was written stays. Again does nothing."""
