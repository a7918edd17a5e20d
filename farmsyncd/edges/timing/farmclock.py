"""Farm time, as the data server keeps it: a time line that neither steps nor runs backwards, whatever is set.

Anchored once to the wall clock, then carried by CLOCK_MONOTONIC_RAW. A server that starts again in the same boot goes
on with the same line, exactly. After a reboot that clock has begun anew, and the line goes on from the wall clock, but
not before the *mark*: a time on disk that is always ahead of every farm time that was ever told.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges.content import durable
from farmsyncd.edges.timing.clocks import LocalClock, RawClock, boot_id
from farmsyncd.errors import LocalError

GIGA = 1_000_000_000
LEASE_NS = 30 * GIGA
RENEWAL = 10.0


@attrs.frozen
class Line:
    """What is on disk: the boot in which raw time ``raw_ns`` was farm time ``farm_ns``, and the mark."""

    boot: str
    raw_ns: int
    farm_ns: int
    mark_ns: int

    @classmethod
    def read(cls, path: Path) -> Line | None:
        """The one in ``path``; None when there is no file. Raises LocalError when it is damaged."""
        try:
            found = json.loads(path.read_text())
            return cls(str(found["boot"]), int(found["raw_ns"]), int(found["farm_ns"]), int(found["mark_ns"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(
                f"expected a line of farm time in {path}, and it cannot be read ({error!r}). If all nodes may see farm "
                "time begin anew, remove the file"
            ) from None

    def write(self, path: Path) -> None:
        """Replace the file at ``path``, durably. Raises LocalError when that cannot be done."""
        durable.write_file(path, json.dumps(attrs.asdict(self)).encode())


class FarmClock:
    """Tells farm time in nanoseconds since the Unix epoch. ``epoch`` names this start of it: 16 hexadecimal digits.

    Opened on the file of its line, in the data server's state directory. :class:`FarmClockKeeper` keeps the mark ahead;
    where it does not come to that in time, telling the time does it.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        raw: LocalClock | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        boot: str | None = None,
    ) -> None:
        self._path = path
        self._raw = raw if raw is not None else RawClock()
        self._wall_ns = wall_ns
        self._boot = boot if boot is not None else boot_id()
        self.epoch = secrets.token_hex(8)
        raw_ns = self._raw.now_ns()
        self._ahead_ns = self._begin(Line.read(path), raw_ns) - raw_ns
        self._mark_ns = 0
        self.keep()

    def _begin(self, last: Line | None, raw_ns: int) -> int:
        if last is None:
            return self._wall_ns()
        if last.boot == self._boot and raw_ns >= last.raw_ns:
            return last.farm_ns + raw_ns - last.raw_ns
        return max(self._wall_ns(), last.mark_ns)

    def now_ns(self) -> int:
        """Farm time."""
        now = self._raw.now_ns() + self._ahead_ns
        if now >= self._mark_ns:
            self._keep_late(now)
        return now

    def from_utc_ns(self, utc_ns: int) -> int:
        """The farm time of a time of the wall clock, as that clock is set at this moment."""
        return utc_ns - self._wall_ns() + self.now_ns()

    def to_utc_ns(self, farm_ns: int) -> int:
        """The time of the wall clock, as that is set at this moment, of a farm time."""
        return farm_ns - self.now_ns() + self._wall_ns()

    def keep(self) -> None:
        """Put the mark ahead, on disk; from any thread. Raises LocalError when that cannot be done."""
        raw_ns = self._raw.now_ns()
        farm_ns = raw_ns + self._ahead_ns
        Line(self._boot, raw_ns, farm_ns, farm_ns + LEASE_NS).write(self._path)
        self._mark_ns = farm_ns + LEASE_NS

    def _keep_late(self, now: int) -> None:
        try:
            self.keep()
        except LocalError:
            # Only a reboot with a wall clock set back needs the mark: that is no reason to leave the farm without time.
            self.log.failure("the mark of farm time could not be written: is the disk full?")
            self._mark_ns = now + LEASE_NS


class FarmClockKeeper(Service):
    """Puts the mark of a farm clock ahead, well before it is reached.

    ``run`` does that in a thread, since a disk is waited for: ``WorkThread.run``.
    """

    log = Logger()

    def __init__(
        self, farm: FarmClock, wakes: IReactorTime, run: Callable[[Callable[[], None]], Deferred[None]]
    ) -> None:
        self._farm = farm
        self._wakes = wakes
        self._run = run
        self._call: IDelayedCall | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._call = self._wakes.callLater(RENEWAL, self._renew)

    def stopService(self) -> None:  # noqa: N802 - IService
        """End."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _renew(self) -> None:
        self._call = self._wakes.callLater(RENEWAL, self._renew)
        self._run(self._farm.keep).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the mark of farm time could not be written: is the disk full?", failure)
