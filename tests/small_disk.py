"""A disk of a few megabytes for a daemon's state: a file system in memory that only the daemon sees, gone with it.

Where this user may not mount one, the daemon is told by a meddled ``statvfs`` that so little is free.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import attrs

from tests.daemons import TREE

_MOUNT = 'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"'
_TOLD = """
import os
_statvfs = os.statvfs
def statvfs(path):
    found = _statvfs(path)
    if not os.path.abspath(path).startswith({state!r}):
        return found
    fields = list(found)
    fields[3] = fields[4] = {size} // found.f_frsize
    return os.statvfs_result(fields)
os.statvfs = statvfs
"""


@attrs.frozen
class SmallDisk:
    """How to start a daemon whose state is on such a disk."""

    through: tuple[str, ...]
    env: dict[str, Any]

    @classmethod
    def at(cls, state: Path, size: int) -> SmallDisk:
        """A disk with ``size`` bytes free at ``state``, which is made."""
        state.mkdir(parents=True)
        if _may_mount():
            return cls(("unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(size), str(state)), {})
        meddling = state.parent / "meddling"
        meddling.mkdir()
        (meddling / "sitecustomize.py").write_text(_TOLD.format(state=str(state), size=size))
        return cls((), {"PYTHONPATH": os.pathsep.join([str(meddling), str(TREE)])})


@functools.cache
def _may_mount() -> bool:
    """Whether a namespace with a mount of its own can be made, which leaves nothing behind."""
    try:
        tried = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "small", "/tmp"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0
