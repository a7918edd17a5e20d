"""Everything that farmsync raises on purpose, sorted by who is at fault.

The command and the daemons turn these into one clear line and an exit status of sysexits(3); anything else that
escapes is a bug and shows its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class FarmsyncError(Exception):
    """Base of all expected failures; its text says what was expected, what was found and what to do."""

    exit_status: ClassVar[int] = 70


class ConfigError(FarmsyncError):
    """The configuration, an option or a configuration file cannot be used as it stands (EX_CONFIG)."""

    exit_status = 78


class LocalError(FarmsyncError):
    """What was asked cannot be done on this machine: a full disk, a state directory in use, a damaged file."""


class BadInput(LocalError):
    """What the user handed over cannot be used: a missing source, a time in the past, an unknown name (EX_DATAERR)."""

    exit_status = 65


class Unavailable(LocalError):
    """What is needed is not to be had at this moment: no data server, no disk space (EX_UNAVAILABLE)."""

    exit_status = 69


class TimedOut(LocalError):
    """The time that the user allowed has passed (EX_TEMPFAIL)."""

    exit_status = 75


class NotAllowed(LocalError):
    """The one who asks may not do this here (EX_NOPERM)."""

    exit_status = 77


class PeerError(FarmsyncError):
    """The other side broke the protocol or sent what it must not; the connection cannot go on."""

    exit_status = 69
