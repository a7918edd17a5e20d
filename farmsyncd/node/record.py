"""What one dataset's node must not forget: STATE/DATASET/record, replaced as a whole and durable before it counts.

It says which cycle is served, which one was announced as the next (so that after a crash between the link's rename
and this record's the cycle of the version that the link names is known), the highest cycle known to have been active
(I-5), what was active before, what is pinned, and the flips that the data server has not noted yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from farmsyncd.core.standing import Turn
from farmsyncd.core.words import is_version
from farmsyncd.edges.content import durable
from farmsyncd.errors import LocalError

_MOST_FLIPS: Final = 100
_MOST_ACTIVATIONS: Final = 100


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A turn, as it is written down."""

    cycle: int
    version: str
    at_ns: int

    @classmethod
    def of(cls, turn: Turn | None) -> Served | None:
        """``turn`` to be written down."""
        return None if turn is None else cls(cycle=turn.cycle, version=turn.version, at_ns=turn.at_ns)

    def turn(self) -> Turn:
        """The turn that was written down."""
        return Turn(self.cycle, self.version, self.at_ns)


class FlipNote(msgspec.Struct, frozen=True, kw_only=True):
    """A flip that the data server must hear of: when it was done in farm time, and the hard bound of that time's error.

    ``detail`` names a hook that failed.
    """

    cycle: int
    version: str
    activated_at_ns: int
    error_bound_ns: int
    detail: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One dataset on one node, over restarts."""

    highest: int = 0
    active: Served | None = None
    pending: Served | None = None
    activations: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    flips: tuple[FlipNote, ...] = ()

    def activated(self, turn: Turn) -> Record:
        """The record once ``turn`` is the one that is served."""
        same = self.active is not None and self.active.cycle == turn.cycle
        activations = self.activations if same else (*self.activations, turn.version)[-_MOST_ACTIVATIONS:]
        pending = self.pending if self.pending is not None and self.pending.cycle > turn.cycle else None
        return msgspec.structs.replace(
            self,
            highest=max(self.highest, turn.cycle),
            active=Served.of(turn),
            pending=pending,
            activations=activations,
        )

    def with_flips(self, flips: Iterable[FlipNote]) -> Record:
        """The record with more to be told to the data server."""
        return msgspec.structs.replace(self, flips=(*self.flips, *flips)[-_MOST_FLIPS:])

    def noted(self, cycle: int) -> Record:
        """The record once the data server has noted the flip of ``cycle``."""
        return msgspec.structs.replace(self, flips=tuple(flip for flip in self.flips if flip.cycle != cycle))


class RecordFile:
    """The record in the file ``path``. Both methods block: ``save`` waits for the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Record:
        """What was saved last; an empty record when nothing was. Raises LocalError for a file that is no record."""
        try:
            record = _DECODER.decode(self.path.read_bytes())
        except FileNotFoundError:
            return Record()
        except msgspec.DecodeError as error:
            raise LocalError(
                f"expected this node's record in {self.path}, and it cannot be read ({error}); "
                "remove the file to start anew from what the data server says"
            ) from None
        versions = [*record.activations, *record.pins, *(one.version for one in (record.active, record.pending) if one)]
        if not all(map(is_version, versions)):
            raise LocalError(
                f"expected versions in {self.path}, and found something else; remove the file to start anew"
            )
        return record

    def save(self, record: Record) -> None:
        """Keep ``record``; durable on return. After a failure, a LocalError, the former one stands."""
        durable.write_file(self.path, msgspec.json.format(msgspec.json.encode(record), indent=1))


_DECODER: Final = msgspec.json.Decoder(Record)
