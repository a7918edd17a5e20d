"""Many subscribers of a Redis in one process, the peer of ``clients``.

Settings: ``[port, channel, how many]``. It says ``"subscribed"``, then for each word, when all have it, ``[the first's
and the last's CLOCK_MONOTONIC_RAW]``. Each asks with a PING now and then, as often as a node's heartbeat does: a
subscriber that does not cannot know that its server is gone.
"""

from __future__ import annotations

import select
import socket
import time

from bench import helper
from bench.asking import raw_ns

BEAT_S = 5.0


def main() -> None:
    """Subscribe, and hear words, until killed."""
    port, channel, count = helper.settings()
    epoll = select.epoll()
    everyone: dict[int, socket.socket] = {}
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        connection.recv(4096)
        everyone[connection.fileno()] = connection
        epoll.register(connection, select.EPOLLIN)
    helper.say("subscribed")
    turns = list(everyone.values())
    next_beat, turn = time.monotonic(), 0
    stamps: list[int] = []
    while True:
        for fd, _event in epoll.poll(max(0.0, next_beat - time.monotonic())):
            if b"message" in everyone[fd].recv(4096):
                stamps.append(raw_ns())
        if len(stamps) == count:
            helper.say([stamps[0], stamps[-1]])
            stamps.clear()
        while time.monotonic() >= next_beat:
            turns[turn % count].sendall(b"PING\r\n")
            turn += 1
            next_beat += BEAT_S / count


if __name__ == "__main__":
    main()
