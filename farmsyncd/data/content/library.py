"""The versions that are kept here: a manifest file for each, and their chunks in the store.

A manifest lies on the disk as the MANIFEST-IS frame that it is sent in. A version is *known* while its file is there
and durable; whoever works with a version that might be cleared away meanwhile keeps it by :meth:`Library.using`.
"""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from farmsyncd.core.messages.content import ManifestIs
from farmsyncd.core.refusal import Refused
from farmsyncd.core.snapshot import Manifest, decode_pieces, encode_pieces
from farmsyncd.core.wire import FrameParser, Limits, encode
from farmsyncd.core.words import is_version
from farmsyncd.data.content.framefile import FrameFile, open_frames
from farmsyncd.edges.content import durable
from farmsyncd.edges.content.packs import ChunkStore
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import LocalError, PeerError

_REMEMBERED = 3
_LIMITS = Limits(netstring=1 << 30, total=1 << 30)


class Library:
    """The manifests under ``directory``, which is made when it is not there, and the ``store`` of their chunks."""

    _log = Logger()

    def __init__(self, directory: Path, store: ChunkStore, thread: WorkThread) -> None:
        self.store = store
        self._directory = directory
        self._thread = thread
        self._remembered: OrderedDict[str, Manifest] = OrderedDict()
        self._used: Counter[str] = Counter()
        directory.mkdir(parents=True, exist_ok=True)
        for torn in directory.glob(f"*{durable.UNFINISHED}"):
            torn.unlink()
        self._known = self.on_disk()

    @property
    def versions(self) -> frozenset[str]:
        """All versions that are known."""
        return frozenset(self._known)

    def __contains__(self, version: str) -> bool:
        return version in self._known

    def on_disk(self) -> set[str]:
        """The versions whose manifests lie on the disk, in any thread."""
        return {path.name for path in self._directory.iterdir() if is_version(path.name)}

    def path(self, version: str) -> Path:
        """Where the manifest of a version lies."""
        return self._directory / version

    def file(self, version: str) -> FrameFile:
        """The MANIFEST-IS frame of a version that is known."""
        return open_frames(self.path(version))

    def manifest(self, version: str) -> Deferred[Manifest]:
        """The manifest of a version. Fails with Refused (``gone``) when it is not kept here any more."""
        found = self._remembered.get(version)
        if found is not None:
            self._remembered.move_to_end(version)
            return succeed(found)
        return self._thread.run(self.read, version).addCallback(self._remember)

    def _remember(self, manifest: Manifest) -> Manifest:
        self._remembered[manifest.version] = manifest
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return manifest

    def read(self, version: str) -> Manifest:
        """Read a manifest's file, in any thread. Raises Refused when it is not there, LocalError when it is damaged."""
        try:
            data = self.path(version).read_bytes()
        except FileNotFoundError:
            raise Refused("gone", f"expected a version that is kept here, and {version} is not") from None
        try:
            (frame,) = FrameParser(_LIMITS).feed(data)
            return decode_pieces(ManifestIs.from_frame(frame).pieces, version)
        except (PeerError, ValueError) as error:
            raise LocalError(
                f"expected the manifest of {version} in {self.path(version)}, and it is damaged ({error}); "
                "publish that version again"
            ) from error

    async def keep(self, manifest: Manifest) -> None:
        """Keep a version, durably; all its chunks must be in the store, and the caller must be :meth:`using` it."""
        await self._thread.run(self._write, manifest)
        self._known.add(manifest.version)
        self._remember(manifest)

    def _write(self, manifest: Manifest) -> None:
        path = self.path(manifest.version)
        durable.write_file(path, encode(ManifestIs(manifest.version, tuple(encode_pieces(manifest))).frame()))

    @contextlib.contextmanager
    def using(self, *versions: str) -> Iterator[None]:
        """Versions that are not dropped meanwhile; they need not be known yet."""
        self._used.update(versions)
        try:
            yield
        finally:
            self._used.subtract(versions)
            self._used += Counter()  # forgets those that are used no more

    async def drop(self, versions: Iterable[str]) -> list[str]:
        """Forget versions, but for those that are being used; which were forgotten. Their chunks stay for now."""
        gone = [version for version in versions if version in self._known and not self._used[version]]
        self._known.difference_update(gone)
        for version in gone:
            self._remembered.pop(version, None)
        await self._thread.run(self._unlink, gone)
        return gone

    def _unlink(self, versions: list[str]) -> None:
        for version in versions:
            self.path(version).unlink(missing_ok=True)
        durable.sync_directory(self._directory)

    def digests(self, versions: Iterable[str]) -> set[bytes]:
        """The digests of all chunks of these versions, in any thread."""
        digests: set[bytes] = set()
        for version in versions:
            digests.update(digest for digest, _length in self.read(version).distinct_chunks())
        return digests
