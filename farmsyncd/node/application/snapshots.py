"""The versions of the node's data that one request works with: each dataset's active one, for the whole request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from farmsyncd.errors import Unavailable
from farmsyncd.reader import ActiveCache, Snapshot


class Snapshots:
    """Takes a snapshot of each dataset. ``datasets`` names those of this node, the first one first; thread-safe."""

    def __init__(self, state: Path, datasets: Callable[[], Iterable[str]]) -> None:
        self._state = state
        self._datasets = datasets
        self._caches: dict[str, ActiveCache] = {}

    def names(self) -> tuple[str, ...]:
        """The datasets, the first one first."""
        return tuple(self._datasets())

    def take(self, into: contextlib.ExitStack) -> dict[str, Snapshot]:
        """The active version of each dataset that has one, until ``into`` is left."""
        found: dict[str, Snapshot] = {}
        for name in self.names():
            with contextlib.suppress(Unavailable):
                found[name] = into.enter_context(self._cache(name).snapshot())
        return found

    def close(self) -> None:
        """Give the leases back as soon as no request uses them."""
        for cache in list(self._caches.values()):
            cache.close()

    def _cache(self, name: str) -> ActiveCache:
        cache = self._caches.get(name)
        if cache is None:
            cache = self._caches.setdefault(name, ActiveCache(self._state / name))
        return cache
