"""The versions of one dataset that can be served, with their manifests made ready for lookups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.node.serving.lookup import Tree


class Shelf:
    """What is complete and right on this disk. ``current`` says which turn is active at this very moment."""

    def __init__(
        self, path: Callable[[str], Path], current: Callable[[], Turn | None], complete: dict[str, Manifest]
    ) -> None:
        self._path = path
        self._current = current
        self._manifests = dict(complete)
        self._trees: dict[str, Tree] = {}

    @property
    def versions(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._manifests)

    def add(self, manifest: Manifest) -> None:
        """A version has become complete."""
        self._manifests[manifest.version] = manifest

    def drop(self, versions: Iterable[str]) -> None:
        """Versions have gone, or are no longer trusted."""
        for version in versions:
            self._manifests.pop(version, None)
            self._trees.pop(version, None)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version that is here."""
        return self._manifests[version]

    def prepare(self, version: str) -> None:
        """Do now what the first request for ``version`` would have to wait for."""
        self.tree(version)

    # For the web side

    def current(self) -> str | None:
        """The version that is active at this very moment."""
        turn = self._current()
        return None if turn is None else turn.version

    def tree(self, version: str) -> Tree | None:
        """The version's files; None when it is not here."""
        tree = self._trees.get(version)
        if tree is None and version in self._manifests:
            tree = self._trees[version] = Tree(self._manifests[version])
        return tree

    def path(self, version: str) -> Path:
        """The version's directory."""
        return self._path(version)
