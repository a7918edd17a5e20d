"""Where periodic datasets come from. A source is asked for a tree, and says when it is the one that it gave before."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Protocol

import attrs
from treq.client import HTTPClient
from twisted.internet.interfaces import IReactorTime

from farmsyncd.data.config import SourceConfig
from farmsyncd.data.content.commanding import Command
from farmsyncd.data.content.fetching import Fetcher
from farmsyncd.data.content.unpacking import is_tar, unpack
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import BadInput


class Source(Protocol):
    """Gives trees."""

    async def read(self, *, known: bool) -> Path | None:
        """A directory with the source's tree as it is now.

        None only when ``known``, which says that the tree that was settled upon is there still, and it is the same.
        """

    def settle(self) -> None:
        """The tree that was read last is published."""

    def clear(self) -> None:
        """The tree that was read last is needed no more; blocks."""


@attrs.frozen
class DirectorySource:
    """A directory of this machine, read where it is."""

    path: Path

    async def read(self, *, known: bool) -> Path | None:  # noqa: ARG002  a Source's signature
        """The directory itself: reading it again costs little when little changed."""
        return self.path

    def settle(self) -> None:
        """Nothing to remember."""

    def clear(self) -> None:
        """Nothing of ours."""


@attrs.frozen
class UrlSource:
    """A tar archive, or a single file, that a web server has."""

    fetcher: Fetcher
    work: Path
    thread: WorkThread
    limit_bytes: int

    async def read(self, *, known: bool) -> Path | None:
        """Fetch, and unpack if it is an archive."""
        await self.thread.run(_make_anew, self.work)
        fetched = self.work / "fetched"
        if not await self.fetcher.fetch(fetched, known=known):
            return None
        return await self.thread.run(self._lay_out, fetched)

    def _lay_out(self, fetched: Path) -> Path:
        tree = self.work / "tree"
        tree.mkdir()
        if is_tar(fetched, self.fetcher.name):
            unpack(fetched, tree, self.limit_bytes)
        else:
            fetched.rename(tree / self.fetcher.name)
        return tree

    def settle(self) -> None:
        """Ask for newer ones only."""
        self.fetcher.settle()

    def clear(self) -> None:
        """Remove what was fetched."""
        shutil.rmtree(self.work, ignore_errors=True)


@attrs.frozen
class CommandSource:
    """What a command prints (a tar archive), or writes."""

    command: Command
    work: Path
    thread: WorkThread

    async def read(self, *, known: bool) -> Path | None:  # noqa: ARG002  a Source's signature
        """Run the command."""
        return await self.thread.run(self._read)

    def _read(self) -> Path:
        _make_anew(self.work)
        tree, printed = self.work / "tree", self.work / "printed"
        tree.mkdir()
        self.command.run(tree, printed)
        if printed.stat().st_size:
            unpack(printed, tree, self.command.limit_bytes)
        elif not any(tree.iterdir()):
            raise BadInput(
                f"expected {self.command.words[0]} to print a tar archive or to write files into $FARMSYNC_OUT, "
                "and it did neither"
            )
        return tree

    def settle(self) -> None:
        """Nothing to remember."""

    def clear(self) -> None:
        """Remove what was made."""
        shutil.rmtree(self.work, ignore_errors=True)


def _make_anew(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def source_of(
    config: SourceConfig,
    work: Path,
    thread: WorkThread,
    http: HTTPClient,
    clock: IReactorTime,
    stopping: threading.Event,
) -> Source:
    """The source that is configured; ``work`` is a directory of its own for what it fetches or makes."""
    timeout = config.timeout_ns / 1e9
    if config.directory is not None:
        return DirectorySource(config.directory)
    if config.url is not None:
        fetcher = Fetcher(config.url, http, clock, timeout, config.limit_bytes)
        return UrlSource(fetcher, work, thread, config.limit_bytes)
    return CommandSource(Command(config.command, timeout, config.limit_bytes, stopping), work, thread)
