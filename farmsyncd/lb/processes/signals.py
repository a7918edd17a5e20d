"""What a balancer makes of signals, besides twistd's own: SIGTERM for the second time, and SIGHUP."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

_END = (signal.SIGTERM, signal.SIGINT)
TAKE_OVER = "--take-over"


class Signals:
    """Signals of the process that ``reactor`` runs in."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def impatient(self, hurry: Callable[[], None]) -> None:
        """Call ``hurry`` when the process is asked to end once more."""

        def again(*_: object) -> None:
            self._reactor.callFromThread(self._hurry, hurry)

        for number in _END:
            signal.signal(number, again)

    def _hurry(self, hurry: Callable[[], None]) -> None:
        self._log.warn("asked to end for the second time: connections that are left are reset")
        hurry()


class _Successor(ProcessProtocol):
    """A balancer that is being started to take over."""

    _log = Logger()

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - IProcessProtocol
        """It has ended; while this one is still there, that was too early."""
        self._ended()
        if not reason.check(ProcessDone):
            code = getattr(reason.value, "exitCode", None)
            how = reason.getErrorMessage() if code is None else f"with status {code}, after it had said why"
            self._log.error("the balancer that was started to take over has ended {how}: this one goes on", how=how)


class Reloading(Service):
    """On SIGHUP, starts this program anew, with the same command line, to take over from this process.

    ``possible`` says whether there is a state directory, where it can find this one.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *, possible: bool) -> None:
        self._reactor = reactor
        self._possible = possible
        self._successor: _Successor | None = None

    def startService(self) -> None:  # noqa: N802 - IService
        """Listen to the signal."""
        super().startService()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def stopService(self) -> None:  # noqa: N802 - IService
        """There is somebody else for it now, or nobody."""
        super().stopService()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _reload(self) -> None:
        if not self._possible:
            self._log.error("cannot reload on SIGHUP: expected a state directory (--state) for another to take over in")
            return
        if self._successor is not None or not self.running:
            return
        command = [*sys.orig_argv, *([] if TAKE_OVER in sys.orig_argv else [TAKE_OVER])]
        self._log.info("SIGHUP: another balancer is started to take over")
        self._successor = _Successor(self._ended)
        self._reactor.spawnProcess(
            self._successor, sys.executable, command, env=dict(os.environ), childFDs={0: 0, 1: 1, 2: 2}
        )

    def _ended(self) -> None:
        self._successor = None


class Telling(Service):
    """Tells systemd, when it wants to know (Type=notify), that this process serves, and that it is the main one now."""

    def startService(self) -> None:  # noqa: N802 - IService
        """Tell it."""
        super().startService()  # type: ignore[no-untyped-call]
        address = os.environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            try:
                told.sendto(f"READY=1\nMAINPID={os.getpid()}".encode(), address.replace("@", "\0", 1))
            except OSError:
                return  # nobody listens any more
