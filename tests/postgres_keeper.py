"""The process that owns a PostgreSQL server for tests: ``python -m tests.postgres_keeper FOLDER BINARIES PARENT_PID``.

It reads a command a line and answers each with a line. When its parent ends, however it ends, the keeper ends the
server, gives back its shared memory and removes the folder: nothing is left behind, not even by a test run that is
killed. It has a session of its own, so that Ctrl-C does not reach it before it reaches the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import psutil

_PATIENCE_S = 60.0
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "150",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",  # processes are killed here, never the machine
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "jit": "off",
}
_ACCESS = "local all with_password scram-sha-256\nlocal all all trust\n"


@attrs.define
class Server:
    """One server: its folder holds the data, the socket and the log."""

    folder: Path
    binaries: Path
    running: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    def create(self) -> None:
        """Make the data directory."""
        if not _may_run(self.binaries):
            self.binaries = _copied(self.binaries, self.folder)
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(
            [self.binaries / "initdb", *options, "--no-instructions", "-D", self.data],
            **_as_nobody(), cwd=self.folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        (self.data / "pg_hba.conf").write_text(_ACCESS)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if self.running is not None and self.running.poll() is None:
            return
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, "-k", self.folder, *settings],
                **_as_nobody(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_end_with_keeper,  # noqa: PLW1509 - the keeper has one thread
            )  # fmt: skip
        ends = time.monotonic() + _PATIENCE_S
        while not self._ready(self.running.pid):
            if self.running.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise RuntimeError(f"the server does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _ready(self, pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return len(lines) > 7 and int(lines[0]) == pid and lines[7].strip() == "ready"
        return False

    def stop(self) -> None:
        """End it in good order; whoever is connected is cut off."""
        if self.running is not None:
            self.resume()
            self.running.send_signal(signal.SIGINT)
            self.running.wait(_PATIENCE_S)
            self.running = None

    def kill(self) -> None:
        """End all its processes at once, as a crash would."""
        while family := self._signal(signal.SIGKILL):
            psutil.wait_procs(family, _PATIENCE_S)
        if self.running is not None:
            self.running.wait(_PATIENCE_S)
            self.running = None

    def pause(self) -> None:
        """Stop all its processes where they are: connections stay, nobody answers."""
        if self.running is not None:
            self.running.send_signal(signal.SIGSTOP)  # first: it starts no more
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> list[psutil.Process]:
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return family

    def _family(self) -> list[psutil.Process]:
        """All server processes; also those whose parent was killed, for they become ours."""
        return psutil.Process().children(recursive=True)

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError):
            segment = int((self.data / "postmaster.pid").read_text().split("\n")[6].split()[1])
            _LIBC.shmctl(segment, _IPC_RMID, None)
        shutil.rmtree(self.folder, ignore_errors=True)


def _as_nobody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _end_with_keeper() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _may_run(binaries: Path) -> bool:
    """Whether that user may run what is installed; a root's environment is often closed to others."""
    try:
        tried = subprocess.run([binaries / "postgres", "--version"], **_as_nobody(), capture_output=True, check=False)
    except OSError:
        return False
    return tried.returncode == 0


def _copied(binaries: Path, folder: Path) -> Path:
    """The server's own tree, and the libraries that lie beside its package, where everybody may read them."""
    tree, package = binaries.parent, binaries.parent.parent
    target = folder / "program" / package.name / tree.name
    shutil.copytree(tree, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "program" / libraries.name)
    for path in [folder / "program", *(folder / "program").rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
    return target / "bin"


def _serve(server: Server, parent: int) -> None:
    """Obey until the parent ends or says so."""
    watched = select.poll()
    watched.register(os.pidfd_open(parent), select.POLLIN)
    watched.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    while [found for found, _ in watched.poll()] == [sys.stdin.fileno()]:
        command = os.read(sys.stdin.fileno(), 100).decode().strip()
        if command in ("", "end"):
            return
        try:
            getattr(server, command)()
            answer = "done"
        except (RuntimeError, OSError, subprocess.SubprocessError, psutil.Error) as error:
            answer = f"failed: {error!r} {getattr(error, 'stderr', '') or ''}".replace("\n", " ")
        print(answer, flush=True)


def main() -> None:
    """Keep a server."""
    folder, binaries, parent = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    server = Server(folder, binaries)
    folder.mkdir(mode=0o711)
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        _serve(server, parent)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
