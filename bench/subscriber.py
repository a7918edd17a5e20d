"""The peer of a flip: renames a link as soon as "go now" arrives from a Redis. As lean as it can be made.

Settings: ``[port, directory]``. The link is prepared before the word arrives, so that a rename is all there is to do.
"""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

from bench import helper

CHANNEL = "go"


def main() -> None:
    """Rename the link at each word, for ever."""
    port, place = helper.settings()
    link, coming = Path(place) / "active", Path(place) / "coming"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(f"SUBSCRIBE {CHANNEL}\r\n".encode())
        connection.recv(4096)
        for number in itertools.count():
            coming.symlink_to(f"versions/{number}")
            if number == 0:
                helper.say("subscribed")
            if not connection.recv(4096):
                return
            os.rename(coming, link)  # noqa: PTH104 - nothing between the word and the rename


if __name__ == "__main__":
    main()
