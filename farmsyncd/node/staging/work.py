"""The part of staging that blocks: one version, put together on the disk. Driven from one worker thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farmsyncd.core import delta
from farmsyncd.core.chunks import Damaged
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.snapshot import Manifest, decode, decode_pieces
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content.assembly import Assembler
from farmsyncd.edges.content.basetree import Base
from farmsyncd.errors import PeerError
from farmsyncd.node.staging.spare import Spare

_NAP_S: Final = 0.02


class Hush:
    """A time in which whoever works on the disk should rest; any thread may ask."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self, seconds: float) -> None:
        """Rest for so long, from now."""
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds of rest that are left; 0 when there is no reason to rest."""
        return max(0.0, self._until - time.monotonic())

    def rest(self, _amount: int = 0) -> None:
        """Sleep while it lasts: for worker threads."""
        while self.left() > 0:
            time.sleep(_NAP_S)


class Work:
    """One version on its way into ``cache``, from ``bases`` (the active version first) and what comes.

    ``spare`` may hold links made ahead. Every method blocks and is called in the worker's thread, but :meth:`cancel`.
    """

    def __init__(
        self, version: str, cache: CacheDir, bases: Sequence[Manifest], hush: Hush, spare: Spare | None = None
    ) -> None:
        self.version = version
        self.manifest: Manifest | None = None
        self._cache = cache
        self._bases = tuple(Base(base, cache.version_path(base.version)) for base in bases)
        self._hush = hush
        self._spare = spare
        self._reader = delta.ManifestReader(bases[0], version) if bases else None
        self._assembler: Assembler | None = None
        self._damaged: dict[bytes, Damaged] = {}
        self._cancelled = False

    def clear(self) -> None:
        """Remove what is left of other versions that were on their way in: nobody wants them any more."""
        for staging in self._cache.stagings():
            if staging != self.version:
                self._cache.discard_staging(staging)

    def resume(self) -> bool:
        """Go on with what an earlier attempt left, if it left a manifest and a tree; whether it did."""
        if self.version not in self._cache.stagings():
            return False
        encoded = self._cache.manifest(self.version)
        if encoded is None:
            return False
        try:
            manifest = decode(encoded, self.version)
        except PeerError:
            return False
        self._begin(manifest, known=True)
        return True

    def take_manifest(self, pieces: Sequence[bytes]) -> None:
        """Begin with the manifest that came."""
        self._begin(decode_pieces(pieces, self.version))

    def take_parts(self, parts: Sequence[bytes]) -> None:
        """Take parts of the step from the first base: the manifest's difference first, then chunks."""
        bundles: list[delta.Bundle] = []
        begun = False
        for data in parts:
            part = delta.read_part(data)
            if isinstance(part, delta.Bundle):
                bundles.append(part)
            elif self._reader is not None and (manifest := self._reader.add(part)) is not None:
                self._begin(manifest)
                begun = True
        if begun:
            self._running.reuse(bundles)
        elif bundles:
            self._running.apply(bundles)

    def _begin(self, manifest: Manifest, *, known: bool = False) -> None:
        if self._assembler is not None:
            raise PeerError(f"expected one manifest of version {self.version}, and a second one came")
        if not known:
            self._cache.save_manifest(self.version, manifest.encoded)
            if self._spare is not None and self._bases:
                self._spare.take(self._bases[0].manifest.version, self.version)
        self.manifest = manifest
        target: Path = self._cache.staging_path(self.version)
        self._assembler = Assembler(target, manifest, self._bases, throttle=self._hush.rest)
        if self._cancelled:
            self._assembler.cancel()
        self._assembler.prepare()

    @property
    def _running(self) -> Assembler:
        if self._assembler is None:
            raise PeerError(f"expected the manifest of version {self.version} first, and content came")
        return self._assembler

    def lacking(self) -> list[int]:
        """The numbers of the chunks that must still come."""
        return self._running.lacking()

    def reuse(self) -> None:
        """Take over what other versions on this disk have."""
        self._running.reuse()

    def take_chunks(self, chunks: Sequence[Chunk]) -> int:
        """Take chunks; how many of them were damaged. Those are still lacking, and may be asked for once more.

        Raises Damaged for one that is damaged for the second time.
        """
        damaged = 0
        left = list(chunks)
        while left:
            try:
                self._running.take(left)
                break
            except Damaged as error:
                if error.digest in self._damaged:
                    raise
                self._damaged[error.digest] = error
                left = [chunk for chunk in left if chunk.digest != error.digest]
                damaged += 1
        return damaged

    def finish(self) -> Manifest:
        """Make the version durable and one of the complete ones."""
        assert self.manifest is not None
        self._running.finish()
        self._running.close()
        self._cache.adopt(self.version)
        return self.manifest

    def cancel(self) -> None:
        """Give up soon; for any thread."""
        self._cancelled = True
        if self._assembler is not None:
            self._assembler.cancel()

    def close(self) -> None:
        """Let go of everything; what was written stays for the next attempt."""
        if self._assembler is not None:
            self._assembler.close()
