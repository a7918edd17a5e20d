"""Asks a balancer over its admin socket: one line of words, one line of JSON."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import click

from farmsyncd.edges.unixpath import short
from farmsyncd.errors import BadInput, FarmsyncError, NotAllowed, PeerError, TimedOut, Unavailable

_PATIENCE_S = 30.0
_TRIES = 3
"""One that hangs up without a word has just been taken over from: its successor answers. Commands may come twice."""
_ERRORS: dict[int, type[FarmsyncError]] = {
    one.exit_status: one for one in (BadInput, Unavailable, TimedOut, NotAllowed)
}

admin = click.option(
    "--admin",
    envvar="FARMSYNC_LB",
    show_envvar=True,
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The balancer's admin socket, as it has it in its own --admin.",
)


def ask(path: Path, *words: str) -> Any:
    """What the balancer answers. A FarmsyncError when it is not there, or says no."""
    if any(not word or any(letter.isspace() for letter in word) for word in words):
        raise BadInput(f"expected words without spaces, and found {' '.join(words)!r}")
    line = " ".join(words)
    said = next(filter(None, (_exchange(path.absolute(), line) for _ in range(_TRIES))), b"")
    try:
        answer = json.loads(said)
    except ValueError:
        raise PeerError(f"expected a balancer's answer on {path}, and something else came") from None
    if isinstance(answer, dict) and "error" in answer:
        raise _ERRORS.get(answer.get("status", 0), Unavailable)(str(answer["error"]))
    return answer


def _exchange(path: Path, line: str) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as connection, short(path) as name:
            connection.settimeout(_PATIENCE_S)
            connection.connect(name)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(line.encode() + b"\n")
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(1 << 16), b""))
            return b""
    except TimeoutError:
        raise TimedOut(f"the balancer at {path} did not answer within {_PATIENCE_S:g} s") from None
    except PermissionError:
        raise NotAllowed(f"expected to be let in at {path}: only the balancer's own user and root are") from None
    except OSError as error:
        raise Unavailable(
            f"expected a balancer at {path}: {error.strerror or error}; is it running, with this --admin?"
        ) from None
