"""A book of sources on disk: read as far as it is whole, continued, and replaced. All of it blocks."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from twisted.logger import Logger

from farmsyncd.core.sourcebook import MAGIC, Reader, Record
from farmsyncd.edges.content.durable import sync_directory, write_all
from farmsyncd.errors import LocalError

_PIECE = 1 << 20


class Reading:
    """Reads the book at ``path``, and later what has been added to it since, by another process as well."""

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = Reader()
        self._file: int | None = None

    @property
    def good(self) -> int:
        """So many bytes of the book are whole."""
        return self._reader.good

    @property
    def nodes(self) -> list[str]:
        """The nodes that the book has numbered."""
        return self._reader.nodes

    def more(self) -> list[Record]:
        """What has come since the last time; all of it when the book has been replaced. LocalError when unreadable."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._restart(None)
            return []
        except OSError as error:
            raise LocalError(f"reading {self.path} failed: {error.strerror}; make it readable for this user") from None
        if self._file is not None and os.path.sameopenfile(file, self._file):
            os.close(file)
        else:
            self._restart(file)
        assert self._file is not None
        os.lseek(self._file, self._reader.good, os.SEEK_SET)
        return self._read(self._file)

    def close(self) -> None:
        """Read no more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _restart(self, file: int | None) -> None:
        """Begin with another file. The former one was held open, lest the other one gets its number."""
        self.close()
        self._file = file
        self._reader = Reader()

    def _read(self, file: int) -> list[Record]:
        records: list[Record] = []
        self._reader.drop_rest()
        while piece := os.read(file, _PIECE):
            try:
                records += self._reader.feed(piece)
            except LocalError as error:
                self._log.warn("{path} is left out: {why}", path=str(self.path), why=str(error))
                self._reader = Reader()
                break
        if self._reader.damaged:
            self._log.warn(
                "{path} is damaged from byte {good} on; what comes after it is lost",
                path=str(self.path),
                good=self._reader.good,
            )
        return records


class BookFile:
    """The book at ``path``, written. OSError from all methods."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft_path = path.with_name(f"{path.name}.new")
        self._file: int | None = None
        self._draft: int | None = None

    def go_on(self, good: int) -> None:
        """Continue the book after its first ``good`` bytes; begin it anew when there is nothing good."""
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, good)
        if not good:
            write_all(self._file, [MAGIC])
        self._draft_path.unlink(missing_ok=True)

    def append(self, frame: bytes) -> None:
        """Write a frame. It survives this process at once, and the machine after :meth:`sync`."""
        if self._file is None:
            raise OSError(errno.EBADF, "the file is not open")
        write_all(self._file, [frame])

    def sync(self) -> None:
        """Wait until the disk has it all."""
        if self._file is not None:
            os.fdatasync(self._file)

    def begin_draft(self) -> None:
        """Begin a book that is going to replace this one."""
        self.drop_draft()
        self._draft = os.open(
            self._draft_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self.draft(MAGIC)

    def draft(self, frame: bytes) -> None:
        """Write a frame of it. When that fails there is no draft any more, so that it cannot replace anything."""
        try:
            write_all(self._there(), [frame])
        except OSError:
            self.drop_draft()
            raise

    def replace(self) -> None:
        """Continue with the draft instead; after a crash there is one of the two, whole."""
        draft = self._there()
        os.fsync(draft)
        self._draft_path.replace(self._path)
        sync_directory(self._path.parent)
        self.close()
        self._file, self._draft = draft, None

    def _there(self) -> int:
        if self._draft is None:
            raise OSError(errno.EBADF, "the draft was given up")
        return self._draft

    def drop_draft(self) -> None:
        """Forget the draft."""
        if self._draft is not None:
            os.close(self._draft)
            self._draft = None
            with contextlib.suppress(OSError):
                self._draft_path.unlink()

    def close(self) -> None:
        """Let go of the book."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
