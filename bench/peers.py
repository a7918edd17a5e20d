"""The programs of others that benchmarks run beside ours: found, or named with what brings them."""

from __future__ import annotations

import os
import shutil
import socket

import attrs

PACKAGES = {"redis-server": "redis-server", "rsync": "rsync"}
_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"  # Debian keeps servers there, where a user's PATH does not look


@attrs.frozen
class PeerMissing(Exception):
    """A peer's program is not installed."""

    program: str

    def __str__(self) -> str:
        package = PACKAGES.get(self.program, self.program)
        return f"{self.program} is not installed: apt-get install {package} brings it; what needs it is left out"


def find(program: str) -> str:
    """The path of ``program``. Raises PeerMissing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_PLACES}")
    if found is None:
        raise PeerMissing(program)
    return found


def free_port() -> int:
    """A port that nobody listens on at this moment, for programs that cannot say which one they were given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
