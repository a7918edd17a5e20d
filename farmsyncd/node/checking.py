"""Whether a version's tree on the disk may be served: what is wrong with it, in a line. Blocks: for worker threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from farmsyncd.core.snapshot import Manifest
from farmsyncd.edges.content.checking import verify

_NAMED = 3


def unhurried(_amount: int) -> None:
    """No reason to rest while reading."""


def by_stat(path: Path, manifest: Manifest) -> str:
    """What is wrong by names, kinds, sizes, times and permissions; the empty text when nothing is."""
    return _told(verify(manifest, path))


def by_hash(path: Path, manifest: Manifest, throttle: Callable[[int], None] = unhurried) -> str:
    """The same, and every byte of every file is read; ``throttle`` may rest after so many of them."""
    return _told(verify(manifest, path, deep=True, throttle=throttle))


def _told(damaged: list[bytes]) -> str:
    if not damaged:
        return ""
    names = ", ".join(os.fsdecode(name) or "the tree" for name in damaged[:_NAMED])
    more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return f"{names}{more}: missing, changed, or not part of it".encode("utf-8", "replace").decode()
