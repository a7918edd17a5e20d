"""What a balancer in front says first: who the client is. Read before a node is sought, since it decides which."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from farmsyncd.core.proxyheader import Fault, HeaderError
from farmsyncd.lb.relaying.events import READING
from farmsyncd.lb.relaying.prologue import LONGEST, Accepted, Prologue

if TYPE_CHECKING:
    from farmsyncd.lb.relaying.relay import Relay


class Greeting:
    """Reads the header that ``prologue`` expects from the client's leg of ``relay``."""

    __slots__ = ("_buffer", "_prologue", "_relay", "touched_ns")

    def __init__(self, relay: Relay, prologue: Prologue) -> None:
        self._relay = relay
        self._prologue = prologue
        self._buffer = b""
        common = relay.common
        self.touched_ns = common.events.now_ns
        common.greeting.begin(self, self.touched_ns)
        front = relay.front
        common.events.handlers[front.fd] = self
        front.mask = READING
        common.events.watch(front.fd, READING)

    def event(self, flags: int) -> None:  # noqa: ARG002 - reading shows what it was
        """Something came. Nothing of it is lost: what follows the header is handed over with it."""
        try:
            while (accepted := self._read()) is None:
                pass
        except BlockingIOError:
            return
        except HeaderError as error:
            self._refuse(error.fault, str(error))
            return
        except OSError:
            self._relay.abort()
            return
        self.cancel()
        # What comes from now on waits in the kernel until the client's leg is watched anew.
        del self._relay.common.events.handlers[self._relay.front.fd]
        self._relay.greeted(accepted)

    def fail(self) -> None:
        """The balancer is at fault."""
        self._relay.abort()

    def expire(self) -> None:
        """It takes too long."""
        found = f"{len(self._buffer)} bytes and silence"
        self._refuse(Fault.LATE, f"expected a header with the client's address, found {found}")

    def cancel(self) -> None:
        """The client is gone, or all is read."""
        self._relay.common.greeting.end(self)

    def _refuse(self, fault: Fault, why: str) -> None:
        self._prologue.refused(self._relay.client, fault, why)
        self._relay.abort()

    def _read(self) -> Accepted | None:
        data = self._relay.front.sock.recv(LONGEST, socket.MSG_DONTWAIT)
        if not data:
            if not self._buffer:  # somebody looked whether anybody is here
                raise ConnectionAbortedError
            raise HeaderError("expected a header with the client's address, found the end", Fault.CUT_OFF)
        self._buffer += data
        accepted = self._prologue.read(self._buffer, self._relay.client)
        if accepted is None and len(self._buffer) >= LONGEST:
            raise HeaderError(f"expected a header within the first {LONGEST} bytes, found none", Fault.TOO_LONG)
        return accepted
