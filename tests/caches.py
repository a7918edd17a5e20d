"""A dataset's directory as a node leaves it, for tests: versions made of a few files, and the pointer beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from farmsyncd.core.pointer import Pointer
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import boot_id

BOOT = boot_id()


def version_of(files: Mapping[str, bytes]) -> str:
    """A version's name: any digest will do."""
    return hashlib.blake2b(repr(sorted(files.items())).encode(), digest_size=20).hexdigest()


def stage(cache: CacheDir, files: Mapping[str, bytes]) -> str:
    """Put a complete, read-only tree into the staging folder; its version."""
    version = version_of(files)
    top = cache.staging_path(version)
    top.mkdir()
    for name, content in files.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o444)
    for directory, _, _ in os.walk(top):
        Path(directory).chmod(0o555)
    cache.save_manifest(version, b"manifest of " + version.encode())
    return version


def add(cache: CacheDir, files: Mapping[str, bytes]) -> str:
    """Make a version of ``files``; its name."""
    version = stage(cache, files)
    cache.adopt(version)
    return version


def files_of(directory: Path) -> dict[str, bytes]:
    """All files below ``directory``."""
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def pointer(
    active: str | None, following: str | None = None, flips_at_ns: int | None = None, cycle: int = 1, boot: bytes = BOOT
) -> Pointer:
    """A pointer with ``active`` as ``cycle`` and ``following``, if any, as the one after."""
    return Pointer(
        active,
        None if active is None else cycle,
        following,
        None if following is None else cycle + 1,
        flips_at_ns,
        boot,
    )
