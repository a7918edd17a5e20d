"""Bringing in one version at a time, again and again until it is there or another one is wanted.

::

    idle --want--> running --it is there--> idle
             ^        | it failed
             '--wait--'        a growing, jittered wait; none when the connection comes back
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.standing import Turn
from farmsyncd.errors import FarmsyncError
from farmsyncd.node.staging.conversation import Cut

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0


class Errand:
    """Sees to it that the wanted version comes in.

    ``bring`` does the work once; cancelling it must end it. ``there`` is called with what was brought, ``changed``
    whenever :attr:`busy` or :attr:`fault` changes. ``random`` is uniform in [0, 1).
    """

    log = Logger()

    def __init__(
        self,
        dataset: str,
        bring: Callable[[Turn], Deferred[Manifest]],
        there: Callable[[Turn, Manifest], None],
        changed: Callable[[], None],
        wakes: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self.wanted: Turn | None = None
        self.fault = ""
        self._dataset = dataset
        self._bring = bring
        self._there = there
        self._changed = changed
        self._wakes = wakes
        self._random = random
        self._running: Deferred[Manifest] | None = None
        self._running_for: str | None = None
        self._waiting: IDelayedCall | None = None
        self._failures = 0
        self._was_cut = False
        self._called_off = False
        self._stopping: list[Deferred[None]] = []
        self._stopped = False

    @property
    def busy(self) -> bool:
        """Whether a version is wanted that is not there yet."""
        return self.wanted is not None

    @property
    def failed(self) -> bool:
        """Whether the last attempt failed for a reason that waiting may not cure; a cut connection is none."""
        return bool(self.fault) and not self._was_cut

    def want(self, turn: Turn | None) -> None:
        """Bring in the version of ``turn``, and no other; None: nothing at all."""
        before, self.wanted = self.wanted, turn
        if turn is not None and before is not None and turn.version == before.version:
            return
        if before is None and turn is None:
            return
        self._forget_fault()
        if self._running is not None:
            if turn is None or turn.version != self._running_for:
                self._call_off(self._running)
        elif turn is not None:
            self._begin()

    def hurry(self) -> None:
        """Try again at once: the connection that may have been the trouble is back."""
        if self._waiting is not None and self._was_cut:
            self._waiting.cancel()
            self._waiting = None
            self._begin()

    def stop(self) -> Deferred[None]:
        """Bring nothing more; fires when what is running has ended."""
        self._stopped = True
        self.wanted = None
        self._forget_fault()
        if self._running is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        self._call_off(self._running)
        return done

    def _call_off(self, running: Deferred[Manifest]) -> None:
        self._called_off = True
        running.cancel()

    def _forget_fault(self) -> None:
        self.fault, self._failures, self._was_cut = "", 0, False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _begin(self) -> None:
        self._waiting = None
        turn = self.wanted
        assert turn is not None
        self._running_for = turn.version
        running = self._bring(turn)
        self._running = running
        running.addBoth(self._ended, running)

    def _ended(self, result: Manifest | Failure, running: Deferred[Manifest]) -> None:
        del running
        turn, brought = self.wanted, self._running_for
        called_off, self._called_off = self._called_off, False
        self._running = self._running_for = None
        if self._stopped:
            waiting, self._stopping = self._stopping, []
            for one in waiting:
                one.callback(None)
        elif turn is None:
            self._changed()
        elif turn.version != brought or (called_off and isinstance(result, Failure)):
            self._begin()  # anew, if it was called off and is wanted again
        elif isinstance(result, Failure):
            self._wait(turn, result)
        else:
            self.wanted = None
            self._forget_fault()
            self._there(turn, result)

    def _wait(self, turn: Turn, failure: Failure) -> None:
        if failure.check(FarmsyncError) or failure.check(OSError):
            fault = str(failure.value)
        else:
            self.log.failure(
                "{dataset}: staging {version} met a fault of ours",
                failure, dataset=self._dataset, version=turn.version,
            )  # fmt: skip
            fault = f"a fault on this side ({failure.getErrorMessage()}); the log says more"
        if fault != self.fault:
            self.log.warn(
                "{dataset}: version {version} could not be staged for cycle {cycle}, and will be tried again: {fault}",
                dataset=self._dataset, version=turn.version, cycle=turn.cycle, fault=fault,
            )  # fmt: skip
        self.fault, self._was_cut = fault, bool(failure.check(Cut))
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0**self._failures)
        self._failures += 1
        self._waiting = self._wakes.callLater(longest * (0.5 + self._random() / 2), self._begin)
        self._changed()
