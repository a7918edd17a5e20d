"""Where large files are cut, so that an insertion costs the chunks around it and not the rest of the file.

A file up to ``whole`` bytes is one chunk. A larger one is cut by FastCDC (the 2020 variant, default gear table), which
places a cut where the bytes before it say so. The parameters are part of a manifest: two snapshots share chunks when
they were cut alike.
"""

from __future__ import annotations

import msgspec
from pyfastcdc import FastCDC


class Cutting(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The cutting parameters of a manifest, in bytes: smallest, aimed-at and largest chunk, and largest uncut file."""

    minimum: int = 256 * 1024
    average: int = 1024 * 1024
    maximum: int = 4 * 1024 * 1024
    whole: int = 1024 * 1024

    def fault(self) -> str | None:
        """What is wrong with these numbers, or None."""
        if not 64 <= self.minimum <= 1024 * 1024:
            return f"expected a smallest chunk of 64 bytes to 1 MiB, and found {self.minimum}"
        if not 256 <= self.average <= 4 * 1024 * 1024:
            return f"expected an average chunk of 256 bytes to 4 MiB, and found {self.average}"
        if not self.minimum < self.average < self.maximum <= MAX_CHUNK:
            return f"expected smallest < average < largest <= {MAX_CHUNK}, and found {self}"
        if not 0 <= self.whole <= self.maximum:
            return f"expected whole files up to the largest chunk's size, and found {self.whole}"
        return None


MAX_CHUNK = 4 * 1024 * 1024
"""No chunk is larger than this many bytes, whatever a manifest says: it must fit a netstring."""

DEFAULT = Cutting()


class Cutter:
    """Cuts one file that is read window by window. Not for two threads at once."""

    def __init__(self, cutting: Cutting) -> None:
        self._maximum = cutting.maximum
        self._cdc = FastCDC(cutting.average, min_size=cutting.minimum, max_size=cutting.maximum)

    def cut(self, window: memoryview, last: bool) -> list[int]:
        """The lengths of the chunks at the start of ``window`` which no later byte can change.

        ``window`` starts at a cut. Unless it is the file's ``last``, less than the largest chunk is left over at its
        end: it belongs at the start of the next window.
        """
        lengths: list[int] = []
        at = 0
        for chunk in self._cdc.cut_buf(window):
            if not last and len(window) - at < self._maximum:
                break
            lengths.append(chunk.length)
            at += chunk.length
        return lengths
