"""Timers that no step of the wall clock moves: ``IReactorTime`` on CLOCK_MONOTONIC.

Twisted's own timers run on the wall clock: set back by an hour, everything that was to happen in a second happens in
an hour. A timerfd knows nothing of the wall clock, and wakes the reactor to the microsecond where epoll's own timeout
is rounded up to whole milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_GIGA = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


@implementer(IReadDescriptor)
class _TimerDescriptor:
    """One timerfd: readable once the time has come."""

    def __init__(self, libc: ctypes.CDLL, expired: Callable[[], None]) -> None:
        self._libc = libc
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._expired = expired

    def arm(self, delay: float) -> None:
        """Become readable in ``delay`` seconds; at once when that is not positive."""
        wait = max(1, int(delay * _GIGA))  # zero would disarm it
        timer = _Timer(_Timespec(0, 0), _Timespec(wait // _GIGA, wait % _GIGA))
        if self._libc.timerfd_settime(self._fd, 0, ctypes.byref(timer), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def fileno(self) -> int:
        return int(self._fd)

    def doRead(self) -> None:  # noqa: N802 - IReadDescriptor
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # armed anew since the reactor saw it expire
        self._expired()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - IReadDescriptor
        """The reactor stops."""

    def logPrefix(self) -> str:  # noqa: N802 - IReadDescriptor
        return "timer"


@implementer(IReactorTime)
class SteadyTime:
    """``callLater`` on CLOCK_MONOTONIC, for whatever must not hang on the wall clock.

    Watches one descriptor in ``reactor`` while calls are pending, and none when there are none. Give it as ``clock`` to
    anything that takes an IReactorTime.
    """

    log = Logger()

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._calls: list[DelayedCall] = []
        self._timer: _TimerDescriptor | None = None

    def seconds(self) -> float:
        """CLOCK_MONOTONIC, in seconds."""
        return time.monotonic()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> DelayedCall:  # noqa: A002, N802 - IReactorTime
        """Call ``callable`` in ``delay`` seconds."""
        call = DelayedCall(
            self.seconds() + delay, callable, args, kw, self._cancelled, lambda _: self._arm(), self.seconds
        )
        self._calls.append(call)
        self._arm()
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:  # noqa: N802 - IReactorTime
        """The pending calls."""
        return list(self._calls)

    def _cancelled(self, call: DelayedCall) -> None:
        self._calls.remove(call)
        self._arm()

    def _arm(self) -> None:
        if not self._calls:
            if self._timer is not None:
                self._reactor.removeReader(self._timer)
                self._timer.close()
                self._timer = None
            return
        if self._timer is None:
            self._timer = _TimerDescriptor(self._libc, self._expired)
            self._reactor.addReader(self._timer)
        self._timer.arm(min(call.getTime() for call in self._calls) - self.seconds())

    def _expired(self) -> None:
        now = self.seconds()
        due = sorted((call for call in self._calls if call.getTime() <= now), key=DelayedCall.getTime)
        for call in due:
            if not call.active():
                continue  # cancelled by one before it
            if call.getTime() > now:
                continue  # put off by one before it
            self._calls.remove(call)
            call.called = 1
            try:
                call.func(*call.args, **call.kw)
            except Exception:
                self.log.failure("a timed call failed")
        self._arm()
