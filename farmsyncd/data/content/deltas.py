"""The difference for the step that nearly all nodes take, from the active version to the next: made once, here.

It is made after a publication has been accepted, in a thread of its own. A node that asks before it is ready waits
for it, within limits; a node with another starting point is sent to the chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.data.content.framefile import FrameFile, open_frames
from farmsyncd.data.content.library import Library
from farmsyncd.edges.workthread import WorkThread

Pair = tuple[str, str]
_NAME = re.compile(r"([0-9a-f]{40})-([0-9a-f]{40})", re.ASCII)


class DeltaRack:
    """The differences under ``directory``, which is made when it is not there; ``make(old, new, path)`` blocks.

    ``wanted`` says whether a step is worth making: that of a dataset's course.
    """

    _log = Logger()

    def __init__(
        self,
        directory: Path,
        library: Library,
        thread: WorkThread,
        make: Callable[[str, str, Path], bool],
        wanted: Callable[[Pair], bool],
    ) -> None:
        self._directory = directory
        self._library = library
        self._thread = thread
        self._make = make
        self._wanted = wanted
        self._making: dict[Pair, list[Deferred[None]]] = {}
        self._impossible: set[Pair] = set()
        directory.mkdir(parents=True, exist_ok=True)
        self._ready: set[Pair] = set()
        for path in directory.iterdir():
            named = _NAME.fullmatch(path.name)
            if named is None:
                path.unlink()  # it was being made when the last process died
            else:
                self._ready.add((named[1], named[2]))

    def find(self, pair: Pair) -> Deferred[FrameFile | None]:
        """The file of DELTA frames of a step, made now if that is worth it; None when there is none to be had."""
        if pair in self._ready:
            return succeed(self._file(pair))
        if pair in self._impossible or not self._wanted(pair):
            return succeed(None)
        done: Deferred[None] = Deferred()
        if pair in self._making:
            self._making[pair].append(done)
        else:
            self._making[pair] = [done]
            Deferred.fromCoroutine(self._begin(pair)).addBoth(self._made, pair)
        return done.addCallback(lambda _: self._file(pair) if pair in self._ready else None)

    def _file(self, pair: Pair) -> FrameFile:
        return open_frames(self._path(pair))

    def _path(self, pair: Pair) -> Path:
        return self._directory / "-".join(pair)

    async def _begin(self, pair: Pair) -> bool:
        with self._library.using(*pair):
            return await self._thread.run(self._make, *pair, self._path(pair))

    def _made(self, result: bool | Failure, pair: Pair) -> None:
        if isinstance(result, Failure):
            self._log.failure(
                "The difference from {old} to {new} could not be made; nodes take chunks instead",
                failure=result, old=pair[0], new=pair[1],
            )  # fmt: skip
        if result is True:
            self._ready.add(pair)
            self._log.info(
                "The difference from {old} to {new} is ready: {size} bytes",
                old=pair[0], new=pair[1], size=self._path(pair).stat().st_size,
            )  # fmt: skip
        else:
            self._impossible.add(pair)
        for done in self._making.pop(pair):
            if not done.called:
                done.callback(None)

    async def drop(self, kept: Iterable[str]) -> None:
        """Remove the differences of which an end is not among the versions ``kept``."""
        kept = set(kept)
        gone = {pair for pair in self._ready if not kept.issuperset(pair)}
        self._ready -= gone
        self._impossible = {pair for pair in self._impossible if kept.issuperset(pair)}
        if gone:
            await self._thread.run(self._unlink, gone)

    def _unlink(self, pairs: set[Pair]) -> None:
        for pair in pairs:
            self._path(pair).unlink(missing_ok=True)
