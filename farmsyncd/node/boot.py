"""What one dataset's directory holds when the node starts, and whether it may be served.

A node that was stopped, killed or cut from power finds its disk in one of a few states, since each step it takes is one
rename. This says which turn is the active one, and lets no version be served that is not complete and right. It blocks:
it belongs into a worker thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs

from farmsyncd.core.pointer import Pointer
from farmsyncd.core.snapshot import Manifest, ManifestError, decode
from farmsyncd.core.standing import Turn
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.errors import LocalError
from farmsyncd.node.record import Record


class Check(Protocol):
    """Looks at a version's tree: what is wrong with it, or the empty text."""

    def __call__(self, path: Path, manifest: Manifest) -> str:
        """Compare the tree at ``path`` with ``manifest``."""


@attrs.frozen
class Damage:
    """A version that is not what its name says."""

    version: str
    what: str


@attrs.frozen
class Found:
    """A dataset as found at start. ``complete`` holds the versions that may be served, with their manifests."""

    record: Record
    active: Turn | None
    pending: Turn | None
    complete: dict[str, Manifest]
    damaged: tuple[Damage, ...] = ()


def look(cache: CacheDir, record: Record, announced: Pointer | None, machine_ns: int, check: Check) -> Found:
    """See what is there.

    ``announced`` is what the readers of this boot of the machine were last told, None after a reboot: when its flip
    lies behind, they have flipped, so that the node must have, too.
    """
    complete: dict[str, Manifest] = {}
    damaged: list[Damage] = []
    for version in cache.versions():
        what, manifest = _examine(cache, version, check)
        if manifest is None:
            damaged.append(Damage(version, what))
        else:
            complete[version] = manifest
    active = _which(record, cache.active_link(), announced, machine_ns)
    pending = record.pending.turn() if record.pending is not None else None
    if pending is not None and active is not None and pending.cycle <= active.cycle:
        pending = None
    if active is not None and active.version not in complete:
        active = None
    return Found(record, active, pending, complete, tuple(damaged))


def _which(record: Record, link: str | None, announced: Pointer | None, machine_ns: int) -> Turn | None:
    """The turn that was the active one. The record lags behind the link for a moment, and the link behind readers."""
    pending = record.pending.turn() if record.pending is not None else None
    active = record.active.turn() if record.active is not None else None
    if pending is not None and (active is None or pending.cycle > active.cycle):
        if link == pending.version and (active is None or link != active.version):
            return pending
        if announced is not None and announced.current_cycle(machine_ns) == pending.cycle:
            return pending
    return active


def _examine(cache: CacheDir, version: str, check: Check) -> tuple[str, Manifest | None]:
    encoded = cache.manifest(version)
    if encoded is None:
        return "its manifest is missing", None
    try:
        manifest = decode(encoded, version)
    except ManifestError as error:
        return str(error), None
    try:
        what = check(cache.version_path(version), manifest)
    except (OSError, LocalError) as error:
        what = str(error)
    return what, None if what else manifest
