"""Which versions of a dataset may go from a node's disk.

Whatever is active, staged, pinned or leased to a reader stays, and so do the last few that were active, so that a
rollback finds them where they are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

KEEP = 3


def recent(activations: Sequence[str], keep: int = KEEP) -> tuple[str, ...]:
    """The last ``keep`` different versions of ``activations``, the active one among them. Both go from old to new."""
    newest_first: list[str] = []
    for version in reversed(activations):
        if len(newest_first) >= keep:
            break
        if version not in newest_first:
            newest_first.append(version)
    return tuple(reversed(newest_first))


def removable(
    versions: Iterable[str],
    *,
    active: str | None,
    staged: Collection[str] = (),
    pinned: Collection[str] = (),
    leased: Collection[str] = (),
    activations: Sequence[str] = (),
    keep: int = KEEP,
) -> list[str]:
    """Those of ``versions`` that may be removed, in the order in which they should be.

    ``activations`` are the versions that were active, oldest first; a version may be there more than once. Versions
    that were never active go first, then those whose last activation is the longest ago. A lease that is not among
    ``leased`` yet is found by whoever removes: he must lock out readers first.
    """
    kept = {active, *staged, *pinned, *leased, *recent(activations, keep)}
    last_active = {version: index for index, version in enumerate(activations)}
    gone = {version for version in versions if version not in kept}
    return sorted(gone, key=lambda version: (last_active.get(version, -1), version))
