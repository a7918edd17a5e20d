"""Which farmsync this is."""

from __future__ import annotations

import importlib.metadata
from typing import Final


def installed() -> str:
    """The version that is installed; ``unreleased`` when the program runs from a tree that is not."""
    try:
        return importlib.metadata.version("farmsync")
    except importlib.metadata.PackageNotFoundError:
        return "unreleased"


RELEASE: Final = installed()
