"""The ``farmsync`` command on a terminal: what it draws there, and what Ctrl-C does to it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import attrs

from tests.shell import Shell

_PATIENCE = 60.0  # seconds
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


@attrs.frozen
class Seen:
    """How a command on a terminal ended, and all that it wrote there."""

    status: int
    text: bytes

    def cursor(self) -> bool:
        """Whether the cursor can be seen after it all."""
        return self.text.rfind(HIDE_CURSOR) <= self.text.rfind(SHOW_CURSOR)


def on_a_terminal(
    shell: Shell, *arguments: str, columns: int = 80, interrupt_at: bytes | None = None, meddling: str = ""
) -> Seen:
    """Run ``farmsync ARGUMENTS`` on a terminal with so many columns.

    Once it has written ``interrupt_at``, it gets the signal that Ctrl-C sends.
    """
    # Whoever runs the tests in the background has their programs ignore Ctrl-C; a person at a terminal does not.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    entry = f"{heeding}\n{meddling}\nfrom farmsyncd.cli.main import main; main()"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", entry, *arguments], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
            env=shell.environment(TERM="xterm-256color"), cwd=shell.directory,
        )  # fmt: skip
        os.close(slave)
        text = b""
        deadline = time.monotonic() + _PATIENCE
        while piece := _read(master, deadline - time.monotonic()):
            text += piece
            if interrupt_at is not None and interrupt_at in text:
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        try:
            return Seen(process.wait(max(0.0, deadline - time.monotonic())), text)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    finally:
        os.close(master)


def _read(master: int, patience: float) -> bytes:
    """What was written; empty when the terminal has been left, or patience is over."""
    readable, _, _ = select.select([master], [], [], max(0.0, patience))
    try:
        return os.read(master, 65_536) if readable else b""
    except OSError:  # nobody has the other end any more
        return b""
