"""What is told of each flip: a command is run, a URL is posted to. A failing hook is reported and changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.error import ConnectionDone, ProcessDone
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges.webclient import dismiss

_TOLD = 300
"""Characters of a failing hook's output that are kept."""


@attrs.frozen
class Flip:
    """What a hook is told."""

    dataset: str
    version: str
    cycle: int
    path: str

    def environment(self) -> dict[str, str]:
        """The variables that a command finds."""
        return {
            "FARMSYNC_DATASET": self.dataset,
            "FARMSYNC_VERSION": self.version,
            "FARMSYNC_CYCLE": str(self.cycle),
            "FARMSYNC_PATH": self.path,
        }


@attrs.frozen
class Hooks:
    """The hooks of one node. ``command`` is a list of words and no shell text; both may be missing.

    ``environment`` is what a command inherits, ``timeout_s`` what each hook may take, by ``clock``, before it is ended.
    """

    reactor: Any
    clock: IReactorTime
    http: HTTPClient
    command: tuple[str, ...] = ()
    url: str | None = None
    timeout_s: float = 30.0
    environment: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))

    log = Logger()

    def __bool__(self) -> bool:
        return bool(self.command) or self.url is not None

    async def run(self, flip: Flip) -> str:
        """Tell both hooks of ``flip``, at the same time; what went wrong, in one line, or the empty text."""
        running = []
        if self.command:
            running.append(self._guarded(f"command {self.command[0]}", self._run_command(flip)))
        if self.url is not None:
            running.append(self._guarded(f"POST {self.url}", self._post(self.url, flip)))
        faults = await defer.gatherResults(running)
        detail = "; ".join(fault for fault in faults if fault)
        if detail:
            self.log.error(
                "{dataset}: after the flip to cycle {cycle}, version {version}, a hook failed: {detail}",
                dataset=flip.dataset, cycle=flip.cycle, version=flip.version, detail=detail,
            )  # fmt: skip
        return detail

    def _guarded(self, what: str, running: defer.Deferred[str]) -> defer.Deferred[str]:
        running.addTimeout(self.timeout_s, self.clock)
        return running.addCallbacks(
            lambda fault: f"{what}: {fault}" if fault else "",
            lambda failure: f"{what}: {self._fault(failure)}",
        )

    def _fault(self, failure: Failure) -> str:
        if failure.check(defer.TimeoutError):
            return f"not done within {self.timeout_s:g} s"
        return (failure.getErrorMessage() or repr(failure.value))[:_TOLD]

    def _run_command(self, flip: Flip) -> defer.Deferred[str]:
        program = _Program()
        name = str(Path(flip.path, self.command[0])) if "/" in self.command[0] else self.command[0]
        if shutil.which(name, path=self.environment.get("PATH")) is None:
            return defer.succeed("there is no such program that may be run")
        try:
            reactor: IReactorProcess = self.reactor
            reactor.spawnProcess(
                program, self.command[0], self.command, {**self.environment, **flip.environment()}, flip.path
            )
        except OSError as error:
            return defer.succeed(f"cannot be started: {error}")
        return program.ended

    def _post(self, url: str, flip: Flip) -> defer.Deferred[str]:
        async def post() -> str:
            response = await self.http.post(url, json=attrs.asdict(flip), unbuffered=True)
            dismiss(response)
            return "" if 200 <= response.code < 300 else f"answered with status {response.code}"

        return defer.ensureDeferred(post())


class _Program(ProcessProtocol):
    """One run of a command. ``ended`` fires with what went wrong, if anything; cancelling it kills the command."""

    def __init__(self) -> None:
        self.ended: defer.Deferred[str] = defer.Deferred(self._kill)
        self._tail = b""

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        self._tail = (self._tail + data)[-_TOLD:]

    errReceived = outReceived  # noqa: N815 - Twisted's name

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        # Not processEnded: a daemon that the command left behind may hold its output open for ever.
        if self.transport is not None:
            self.transport.loseConnection()
        if self.ended.called:
            return
        if reason.check(ProcessDone, ConnectionDone):
            self.ended.callback("")
            return
        said = self._tail.decode("utf-8", "replace").strip().replace("\n", " / ")
        status, signal = getattr(reason.value, "exitCode", None), getattr(reason.value, "signal", None)
        ended = f"ended with status {status}" if status is not None else f"was ended by signal {signal}"
        self.ended.callback(f"{ended}: {said}" if said else ended)

    def _kill(self, _: defer.Deferred[str]) -> None:
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess("KILL")
