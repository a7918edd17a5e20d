"""Links made ahead: a tree of hard links to the active version, in which the next one will be put together.

Most of a version is what the one before it was, and making a link for each such file is most of what staging an
update asks of a node's processor. So that is done while the node has nothing to do; staging then finds the links in
place, and knows them by their inodes. Nothing depends on it: a tree of links that is not there, or is not complete,
or is one to files that have changed, costs staging what it would have cost without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from twisted.logger import Logger

from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.content.assembly import Assembler, Cancelled
from farmsyncd.edges.content.basetree import Base
from farmsyncd.errors import FarmsyncError

WORTH_IT: Final = 1000
"""Entries of a version, below which linking them takes so little that it is not done ahead."""
_NAP_S: Final = 0.01
"""After each few hundred links: nobody waits for this, and others may wait for the disk."""


class Spare:
    """The tree of links of one dataset. ``rest`` is called now and then, and sleeps while a swap is near.

    ``make`` and ``take`` block and may be called in different threads; ``stop`` is for any thread.
    """

    log = Logger()

    def __init__(self, cache: CacheDir, rest: Callable[[int], None], worth_it: int = WORTH_IT) -> None:
        self._cache = cache
        self._rest = rest
        self._worth_it = worth_it
        self._lock = Lock()
        self._making: Assembler | None = None

    def make(self, manifest: Manifest) -> None:
        """Link all files of the complete version ``manifest``; other versions' links go."""
        version = manifest.version
        with self._lock:
            self._cache.discard_spares(keep=version)
            if len(manifest.entries) < self._worth_it:
                return
            assembler = self._making = Assembler(
                self._cache.spare_path(version),
                manifest,
                [Base(manifest, self._cache.version_path(version))],
                workers=1,
                throttle=self._gently,
            )
            try:
                assembler.prepare()
                assembler.link()
            except Cancelled:
                pass  # what there is of it is of use
            except FarmsyncError as error:
                self.log.info("no links are made ahead: {error}", error=str(error))
                self._cache.discard_spares()
            finally:
                self._making = None
                assembler.close()

    def take(self, base: str, version: str) -> None:
        """Let ``version`` be put together in the links to ``base``, if there are any and nothing is there yet."""
        self.stop()
        with self._lock:
            self._cache.use_spare(base, version)

    def stop(self) -> None:
        """Have ``make`` end soon, if it is running."""
        making = self._making
        if making is not None:
            making.cancel()

    def _gently(self, amount: int) -> None:
        self._rest(amount)
        time.sleep(_NAP_S)
