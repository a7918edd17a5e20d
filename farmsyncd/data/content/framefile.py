"""Files of whole frames, which are sent as they lie."""

from __future__ import annotations

import os
from pathlib import Path

import attrs


@attrs.frozen(eq=False)
class FrameFile:
    """A file of frames, open for as long as this is held; see :class:`farmsyncd.edges.link.Extent`."""

    fd: int
    length: int
    offset: int = 0

    def __del__(self) -> None:
        os.close(self.fd)


def open_frames(path: Path) -> FrameFile:
    """All frames of the file at ``path``. Raises OSError when it cannot be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return FrameFile(fd, os.fstat(fd).st_size)
