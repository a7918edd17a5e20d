"""Who does the work: the daemon's own process, or workers. The daemon treats both alike."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred


class Crew(Protocol):
    """Serves clients on listening sockets, which stay the daemon's to close. Each call waits for the one before::

    prepare, begin, [pause, resume]..., [pause], finish
    """

    def prepare(self, sockets: Sequence[socket.socket]) -> Deferred[None]:
        """Get ready, as far as that can be done while another balancer is still at work. FarmsyncError: it cannot."""

    def begin(self) -> Deferred[None]:
        """Serve clients, knowing all that was written down up to now."""

    def pause(self) -> Deferred[None]:
        """Accept nobody, and write down all that a successor has to know. Those who are connected stay."""

    def resume(self) -> Deferred[None]:
        """The successor has failed: go on."""

    def finish(self, limit_s: float) -> Deferred[None]:
        """Accept nobody; fires when nobody is connected: after ``limit_s`` those who are left are reset.

        May be called again with another limit.
        """

    def answer(self, words: Sequence[str]) -> Any:
        """What :meth:`farmsyncd.lb.steering.Steering.answer` says, or a Deferred of it."""

    def status(self) -> Any:
        """What ``/status`` shows, or a Deferred of it."""

    def metrics(self) -> Any:
        """The same for ``/metrics``."""

    def ready(self) -> Any:
        """The same for ``/ready``."""
