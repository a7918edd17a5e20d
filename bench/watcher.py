"""Sees links being renamed, from outside: inotify, and the machine's own clock read as soon as it wakes this process.

Settings: a list of directories, whose entry ``active`` is watched. When something happened, and nothing more for a
while, it says the list of ``[number of the directory, CLOCK_MONOTONIC_RAW in nanoseconds]``. While things happen it
does nothing else, and sleeps in the kernel in between; where it may, it goes ahead of all that it watches, so that the
stamps are the renames' and not the scheduler's.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator, Sequence

from bench import helper

QUIET_MS = 300
_EVENT = struct.Struct("iIII")
_IN_MOVED_TO = 0x80
_LIBC = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Renames to ``name`` in any of ``directories``."""

    def __init__(self, directories: Sequence[str], name: str = "active") -> None:
        self._name = os.fsencode(name)
        self.fd = _LIBC.inotify_init1(os.O_CLOEXEC)
        self._numbers = {self._add(path): number for number, path in enumerate(directories)}

    def _add(self, path: str) -> int:
        descriptor: int = _LIBC.inotify_add_watch(self.fd, os.fsencode(path), _IN_MOVED_TO)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), f"{path} cannot be watched")
        return descriptor

    def read(self) -> tuple[int, bytes]:
        """Wait for events: when they were seen, and what they are, which :meth:`events` reads later."""
        data = os.read(self.fd, 65536)
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), data

    def events(self, data: bytes) -> Iterator[int]:
        """The directories in which the name was renamed to."""
        at = 0
        while at < len(data):
            descriptor, _mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            if data[at - length : at].rstrip(b"\0") == self._name:
                yield self._numbers[descriptor]

    def close(self) -> None:
        """See no more."""
        os.close(self.fd)


def _go_ahead() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    except OSError:
        return False
    return True


def main() -> None:
    """Watch until nobody listens any more."""
    watch = Watch(helper.settings())
    helper.say({"ahead": _go_ahead()})
    poll = select.poll()
    poll.register(watch.fd, select.POLLIN)
    seen: list[tuple[int, bytes]] = []
    while True:
        if poll.poll(QUIET_MS if seen else None):
            seen.append(watch.read())
            continue
        found = [[number, stamp] for stamp, data in seen for number in watch.events(data)]
        seen.clear()
        if found:
            helper.say(found)


if __name__ == "__main__":
    main()
