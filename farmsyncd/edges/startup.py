"""How a daemon fails to start: a clear line for each fault and a status of sysexits(3), instead of a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from farmsyncd.errors import FarmsyncError


@contextlib.contextmanager
def one_line(program: str) -> Iterator[None]:
    """Ends the process when what is done inside fails for a reason that farmsync knows.

    For a daemon's ``makeService`` and for what its services do when they start. Before the log begins the line goes
    to the standard error, later it becomes a line of the log. An error with several lines is several faults.
    """
    try:
        yield
    except FarmsyncError as error:
        for line in str(error).split("\n"):
            print(f"{program}: {line}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
