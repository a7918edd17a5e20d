"""Clients for a balancer: one process with an epoll loop, told what to do in lines of JSON.

``{"do": "short", "port": P, "count": N, "at_once": K, "sources": S}``  N connections of one small request each
``{"do": "kept", "port": P, "count": N, "at_once": K, "sources": S}``   N small requests on K connections that stay
``{"do": "bulk", "port": P, "count": N, "at_once": K, "path": "/x"}``   N large answers, whose bytes are not looked at
``{"do": "idle", "port": P, "count": N, "sources": S}``                 N connections, a request each, that stay open
``{"do": "leave"}``                                                     close those

Each is answered with ``{"seconds": wall time, "bytes": received, "failed": connections that ended badly}``.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import Any

from bench import helper

END = "HTTP/1.0\r\nHost: shop\r\nConnection: close\r\n\r\n"
KEEP = "HTTP/1.1\r\nHost: shop\r\n\r\n"
ANSWER = b"hello\n"
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT, which the socket module does not name before 3.13
_PIECE = 1 << 20
_SPACE = bytearray(_PIECE)  # nothing is put in there: the kernel throws the bytes away and counts them


class Shoppers:
    """Up to ``at_once`` connections that each ask; when one is done, the next begins."""

    def __init__(self, port: int, request: str, sources: int) -> None:
        self.request = request.encode()
        self.received = 0
        self.failed = 0
        self.done = 0
        self.open: dict[int, socket.socket] = {}
        self._port = port
        self._sources = max(1, sources)
        self._begun = 0
        self._epoll = select.epoll()

    def begin(self) -> None:
        """One connection more, from the next of the source addresses."""
        self._begun += 1
        number = self._begun % self._sources
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.setsockopt(socket.IPPROTO_IP, _NO_PORT, 1)
        client.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
        code = client.connect_ex(("127.0.0.1", self._port))
        if code != errno.EINPROGRESS:
            raise OSError(code, "cannot connect")
        fd = client.fileno()
        self.open[fd] = client
        self._epoll.register(fd, _EDGES)

    def short(self, count: int, at_once: int) -> None:
        """Connections of one request each, to the answer's end."""
        asked: set[int] = set()

        def event(fd: int, flags: int) -> None:
            if fd not in asked:
                asked.add(fd)
                self.open[fd].send(self.request)
            if flags & select.EPOLLIN:
                self._read_to_end(fd, asked)

        self._rounds(count, at_once, event)

    def kept(self, count: int, at_once: int) -> None:
        """Requests on connections that stay, one at a time on each."""
        asked: set[int] = set()

        def event(fd: int, flags: int) -> None:
            if fd not in asked:
                asked.add(fd)
                self.open[fd].send(self.request)
            if flags & select.EPOLLIN:
                data = self.open[fd].recv(4096)
                self.received += len(data)
                if not data.endswith(ANSWER):
                    raise ConnectionError(f"found {data!r}")
                self.done += 1
                self.open[fd].send(self.request)

        for _ in range(at_once):
            self.begin()
        while self.done < count:
            for fd, flags in self._epoll.poll(30):
                event(fd, flags)

    def idle(self, count: int) -> None:
        """Connections that asked once, and are not closed."""
        asked: set[int] = set()

        def event(fd: int, flags: int) -> None:
            if fd not in asked:
                asked.add(fd)
                self.open[fd].send(self.request)
            if flags & select.EPOLLIN:
                self.received += len(self.open[fd].recv(4096))
                self.done += 1

        for number in range(count):
            self.begin()
            if number % 64 == 63:
                self._until(number - 63, event)
        self._until(count, event)

    def leave(self) -> None:
        """Close what is open."""
        while self.open:
            self.open.popitem()[1].close()

    def _until(self, done: int, event: Any) -> None:
        while self.done < done:
            for fd, flags in self._epoll.poll(30):
                event(fd, flags)

    def _rounds(self, count: int, at_once: int, event: Any) -> None:
        for _ in range(min(count, at_once)):
            self.begin()
        while self.done < count:
            for fd, flags in self._epoll.poll(30):
                if fd in self.open:
                    event(fd, flags)
            while self._begun < count and len(self.open) < at_once:
                self.begin()

    def _read_to_end(self, fd: int, asked: set[int]) -> None:
        client = self.open[fd]
        try:
            while size := client.recv_into(_SPACE, _PIECE, socket.MSG_TRUNC):
                self.received += size
        except BlockingIOError:
            return
        except OSError:
            self.failed += 1
        self.done += 1
        asked.discard(fd)
        del self.open[fd]
        client.close()


def main() -> None:
    """Do what is ordered."""
    resting: list[Shoppers] = []
    for order in helper.orders():
        began = time.monotonic()
        if order["do"] == "leave":
            for shoppers in resting:
                shoppers.leave()
            resting.clear()
            helper.say({"seconds": time.monotonic() - began, "bytes": 0, "failed": 0})
            continue
        stays = order["do"] in {"kept", "idle"}
        path = order.get("path", "/")
        shoppers = Shoppers(order["port"], f"GET {path} {KEEP if stays else END}", order.get("sources", 1))
        count, at_once = order["count"], order.get("at_once", 1)
        match order["do"]:
            case "short" | "bulk":
                shoppers.short(count, at_once)
            case "kept":
                shoppers.kept(count, at_once)
            case "idle":
                shoppers.idle(count)
        seconds = time.monotonic() - began
        helper.say({"seconds": seconds, "bytes": shoppers.received, "failed": shoppers.failed})
        if order["do"] == "idle":
            resting.append(shoppers)
        else:
            shoppers.leave()


if __name__ == "__main__":
    main()
