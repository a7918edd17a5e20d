"""A client of a real data server over a blocking socket: for tests that run it as a process of its own."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from farmsyncd.core import ranges
from farmsyncd.core.messages import Message, Side, read
from farmsyncd.core.messages.content import Chunk, Lack, Offer
from farmsyncd.core.messages.greeting import PROTOCOL, Bye, Hello, Ping, Pong
from farmsyncd.core.messages.operating import Accepted, Publish
from farmsyncd.core.snapshot import encode_pieces
from farmsyncd.core.wire import FrameParser, encode
from farmsyncd.edges.content.packing import packed_chunks
from farmsyncd.edges.content.tree import scan

M = TypeVar("M", bound=Message)
PATIENCE = 30.0


class Ended(Exception):
    """The server has ended the connection; the text is its reason."""


class Caller:
    """One connection. ``role`` None does not greet."""

    def __init__(self, address: str, role: str | None = "operator", name: str = "tester", **features: str) -> None:
        _tcp, host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._parser = FrameParser()
        self._came: list[Message] = []
        if role is not None:
            pairs = tuple(f"{key}={value}" for key, value in features.items())
            self.send(Hello(PROTOCOL, role, name, pairs))
            self.expect(Hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def send(self, *messages: Message) -> None:
        """Send messages."""
        self._socket.sendall(b"".join(encode(message.frame()) for message in messages))

    def receive(self) -> Message:
        """The next message but heartbeats. Raises Ended at the end."""
        while True:
            while not self._came:
                data = self._socket.recv(1 << 20)
                if not data:
                    raise Ended("without a word")
                self._came += [read(frame, Side.SERVER) for frame in self._parser.feed(data)]
            message = self._came.pop(0)
            if isinstance(message, Bye):
                raise Ended(message.reason.decode())
            if isinstance(message, Ping):
                self.send(Pong(message.token))
            elif not isinstance(message, Pong):
                return message

    def expect(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        message = self.receive()
        assert isinstance(message, kind), message
        return message

    def ask(self, message: Message, kind: type[M]) -> M:
        """Send a message; the answer, which must be of this kind."""
        self.send(message)
        return self.expect(kind)

    def upload(self, tree: Path) -> str:
        """Offer the tree and send what is lacking; its version."""
        scanned = scan(tree)
        version = scanned.manifest.version
        lack = self.ask(Offer(version, tuple(encode_pieces(scanned.manifest))), Lack)
        numbers = ranges.read(lack.ranges, len(scanned.manifest.distinct_chunks()))
        for chunk in packed_chunks(scanned, numbers, 1):
            self.send(Chunk(chunk.digest, chunk.codec, chunk.length, bytes(chunk.packed)))
        return version

    def publish(self, dataset: str, tree: Path, when: str = "now") -> Accepted:
        """Upload the tree and publish it."""
        return self.ask(Publish(dataset, self.upload(tree), when), Accepted)
