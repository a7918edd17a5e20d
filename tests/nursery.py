"""Daemons that start at once: one process that has imported all there is to import, and forks for each of them.

What runs in the fork is twistd with its options and a reactor of its own, as it would be from a shell, so that a test
can afford to kill a daemon and start it again dozens of times. ``python -m tests.nursery`` is that process: it reads a
line of JSON for each request, and answers with one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, Self, cast

import attrs

from tests.daemons import TREE, Daemon, Daemons, environment

_PR_SET_PDEATHSIG = 1
_PLAN = "FARMSYNC_TEST_PLAN"


class Nursery:
    """The tests' side of that process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=TREE,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, request: Mapping[str, object]) -> Any:
        """Send a request; its answer."""
        stdin, stdout = (cast("IO[bytes]", one) for one in (self._process.stdin, self._process.stdout))
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the nursery has ended"
        return json.loads(line)

    def close(self) -> None:
        """End it, and whatever it has forked."""
        self._process.communicate()


@attrs.define
class Child:
    """A process that the nursery has forked; to its users it is like a ``subprocess.Popen``."""

    nursery: Nursery
    args: tuple[str, ...]
    pid: int
    fd: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """The status once it has ended, else None."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; the status."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            waiter = select.poll()
            waiter.register(self.fd, select.POLLIN)
            if waiter.poll(None if timeout is None else timeout * 1000):
                self.returncode = self.nursery.ask({"reap": self.pid})
                os.close(self.fd)
        return self.returncode


@attrs.define
class ForkedDaemon(Daemon):
    """A daemon from the nursery. ``plan`` says how its next start is to go wrong, see ``tests.crashing``."""

    nursery: Nursery = attrs.field(kw_only=True)
    plan: dict[str, object] = attrs.field(factory=dict, kw_only=True)

    def start(self) -> Self:
        """Start the process, anew after it has ended; see :meth:`ready` for when it listens."""
        assert self.process is None, f"{self.name} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.addresses_path.unlink(missing_ok=True)
        args = ("twistd", "-n", "--pidfile=", *self.arguments, "--addresses", str(self.addresses_path))
        env = {**self.env, _PLAN: json.dumps(self.plan)}
        pid = self.nursery.ask({"args": args, "cwd": str(self.directory), "log": str(self.log_path), "env": env})
        child = Child(self.nursery, args, pid, os.pidfd_open(pid))
        self.process = cast("subprocess.Popen[bytes]", child)
        return self

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself, or was never started."""
        return self.process is None or self.process.poll() is not None


class ForkedDaemons(Daemons):
    """The daemons of one test, from the nursery. ``next_plan`` is the plan of the next one that is started."""

    def __init__(self, directory: Path, nursery: Nursery) -> None:
        super().__init__(directory)
        self._nursery = nursery
        self.next_plan: dict[str, object] = {}

    def start(
        self,
        tapname: str,
        *arguments: str,
        name: str = "",
        state: bool = True,
        through: tuple[str, ...] = (),
        **env: str,
    ) -> ForkedDaemon:
        """Start ``twistd -n TAPNAME ARGUMENTS``, with a state directory of its own when ``state``; does not wait."""
        assert not through, "what is forked cannot be started through another program"
        name = name or f"{tapname}-{len(self._all)}"
        directory = self._directory / name
        own = ("--state", str(directory / "state")) if state else ()
        plan, self.next_plan = self.next_plan, {}
        daemon = ForkedDaemon(name, (tapname, *own, *arguments), directory, env, nursery=self._nursery, plan=plan)
        self._all.append(daemon)
        return daemon.start()


# What follows runs in the nursery itself.


def _main() -> None:
    _prepare()
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        answer = _reap(request["reap"]) if "reap" in request else _fork(request)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # and the children with it


def _prepare() -> None:
    """Import all that the daemons will import."""
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    for name in ("twisted.scripts.twistd", "farmsyncd.data.service", "farmsyncd.node.service", "tests.crashing"):
        importlib.import_module(name)
    list(getPlugins(IServiceMaker))
    gc.collect()
    gc.freeze()


def _reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        _become_a_daemon(request)
    return pid


def _become_a_daemon(request: dict[str, Any]) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    _new_reactor()
    from twisted.scripts import twistd

    from tests import crashing

    crashing.install(json.loads(os.environ.pop(_PLAN)))
    sys.argv = list(request["args"])
    twistd.run()
    sys.exit(0)


def _new_reactor() -> None:
    """The one that came with the imports shares its descriptors with every other fork."""
    from twisted.internet import default

    old = sys.modules.pop("twisted.internet.reactor", None)
    default.install()
    new = sys.modules["twisted.internet.reactor"]
    for module in list(sys.modules.values()):
        for name in _names_of(module, old):
            setattr(module, name, new)


def _names_of(module: object, value: object) -> Iterator[str]:
    if value is not None:
        yield from [name for name, one in list(getattr(module, "__dict__", {}).items()) if one is value]


if __name__ == "__main__":
    _main()
