"""Which farmsync this is."""

from __future__ import annotations

import functools
import importlib.metadata


@functools.cache
def version() -> str:
    """The version that is installed; ``unreleased`` when the program runs from a tree that is not."""
    try:
        return importlib.metadata.version("farmsync")
    except importlib.metadata.PackageNotFoundError:
        return "unreleased"
