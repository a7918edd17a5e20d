"""What is told of each flip: a command is run, a URL is posted to. A failing hook is reported and changes nothing."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from farmsyncd.edges import program
from farmsyncd.edges.webclient import dismiss, explained
from farmsyncd.edges.workthread import WorkThread

_TOLD = 300
"""Characters of a failing hook's output that are kept."""
_MOST = 65_536
_STOPPED = "ended, for the node is being stopped"


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


@attrs.define(eq=False)
class Hooks:
    """The hooks of one node. ``command`` is a list of words and no shell text; both may be missing.

    ``environment`` is what a command inherits, ``timeout_s`` what each hook may take before it is ended: a POST by
    ``clock``, a command with all that it started, the hard way after another ``grace_s``.
    """

    reactor: Any
    clock: IReactorTime
    http: HTTPClient
    command: tuple[str, ...] = ()
    url: str | None = None
    timeout_s: float = 30.0
    environment: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))
    grace_s: float = program.GRACE_S
    _stopping: threading.Event = attrs.field(factory=threading.Event, init=False)
    _posts: set[Deferred[str]] = attrs.field(factory=set, init=False)
    _runs: set[Deferred[None]] = attrs.field(factory=set, init=False)

    log: ClassVar[Logger] = Logger()

    def __bool__(self) -> bool:
        return bool(self.command) or self.url is not None

    async def run(self, flip: Flip) -> str:
        """Tell both hooks of ``flip``, at the same time; what went wrong, in one line, or the empty text."""
        over: Deferred[None] = Deferred()
        self._runs.add(over)
        try:
            return await self._run(flip)
        finally:
            self._runs.discard(over)
            over.callback(None)

    async def _run(self, flip: Flip) -> str:
        running = []
        if self.command:
            running.append(_guarded(f"command {self.command[0]}", self._run_command(flip)))
        if self.url is not None:
            running.append(_guarded(f"POST {self.url}", self._post(self.url, flip)))
        faults = await gatherResults(running)
        detail = "; ".join(fault for fault in faults if fault)
        if detail:
            self.log.error(
                "{dataset}: after the flip to cycle {cycle}, version {version}, a hook failed: {detail}",
                dataset=flip.dataset, cycle=flip.cycle, version=flip.version, detail=detail,
            )  # fmt: skip
        return detail

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """End what runs; fires when nothing does any more. From now on hooks are told nothing."""
        self._stopping.set()
        for post in list(self._posts):
            post.cancel()
        return DeferredList(list(self._runs))

    def _run_command(self, flip: Flip) -> Deferred[str]:
        # A thread of its own: to start a program takes its time, and other datasets may be due at this very instant.
        thread = WorkThread("hook", self.reactor)
        return thread.run(self._command, flip).addBoth(lambda result: thread.stop().addCallback(lambda _: result))

    def _command(self, flip: Flip) -> str:
        """In a thread: what went wrong, or the empty text."""
        if self._stopping.is_set():
            return _STOPPED
        name = str(Path(flip.path, self.command[0])) if "/" in self.command[0] else self.command[0]
        if shutil.which(name, path=self.environment.get("PATH")) is None:
            return "there is no such program that may be run"
        try:
            process = program.start(
                self.command,
                {**self.environment, **flip.environment()},
                Path(flip.path),
                subprocess.PIPE,
                subprocess.STDOUT,
            )
        except OSError as error:
            return f"cannot be started: {error}"
        assert process.stdout is not None
        try:
            return self._wait(process, _Tail(process.stdout.fileno()))
        finally:
            # Not at the output's end: a daemon that the command left behind may hold it open for ever.
            process.stdout.close()

    def _wait(self, process: subprocess.Popen[bytes], tail: _Tail) -> str:
        deadline = time.monotonic() + self.timeout_s
        while process.poll() is None:
            stopping = self._stopping.is_set()
            if stopping or time.monotonic() >= deadline:
                program.end(process, self.grace_s)
                return _STOPPED if stopping else self._late()
            tail.listen(program.GLANCE_S)
        tail.listen(0)
        if process.returncode == 0:
            return ""
        said = tail.text()
        status = process.returncode
        ended = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        return f"{ended}: {said}" if said else ended

    def _late(self) -> str:
        return f"not done within {self.timeout_s:g} s"

    def _post(self, url: str, flip: Flip) -> Deferred[str]:
        async def post() -> str:
            response = await self.http.post(url, json=attrs.asdict(flip), unbuffered=True)
            dismiss(response)
            return "" if 200 <= response.code < 300 else f"answered with status {response.code}"

        def over(result: str | Failure) -> str | Failure:
            self._posts.discard(posting)
            return _STOPPED if self._stopping.is_set() else result

        if self._stopping.is_set():
            return succeed(_STOPPED)
        posting = Deferred.fromCoroutine(post())
        self._posts.add(posting)
        return posting.addTimeout(self.timeout_s, self.clock, lambda _result, _timeout: self._late()).addBoth(over)


def _guarded(what: str, running: Deferred[str]) -> Deferred[str]:
    return running.addCallbacks(
        lambda fault: f"{what}: {fault}" if fault else "",
        lambda failure: f"{what}: {explained(failure)[:_TOLD]}",
    )


class _Tail:
    """The last words of a program, taken from the pipe ``output`` as they come."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._words = b""
        self._poll = select.poll()
        self._poll.register(output, select.POLLIN)
        os.set_blocking(output, False)
        self._ended = False

    def listen(self, seconds: float) -> None:
        """Take what is there, or comes within so long."""
        if self._ended:
            time.sleep(seconds)
            return
        if not self._poll.poll(seconds * 1000):
            return
        said = os.read(self._output, _MOST)
        self._ended = not said
        self._words = (self._words + said)[-_TOLD:]

    def text(self) -> str:
        """What was said, in one line."""
        return self._words.decode("utf-8", "replace").strip().replace("\n", " / ")
