"""Short conversations with a data server over a plain socket, for a benchmark that must not cost much itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import attrs

from farmsyncd.core import wire
from farmsyncd.core.messages import Message, Side, read
from farmsyncd.core.messages.clock import Now, Time
from farmsyncd.core.messages.greeting import PROTOCOL, Hello, No
from farmsyncd.core.messages.operating import Accepted, Answer, Publish

M = TypeVar("M", bound=Message)
PATIENCE = 60.0


def raw_ns() -> int:
    """The machine's one real clock."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


@attrs.frozen
class FarmTime:
    """Farm time less the machine's clock: between ``low`` and ``high``, in nanoseconds."""

    low: int
    high: int

    def machine_ns(self, farm_ns: int) -> int:
        """The machine's clock at a farm time, right to :attr:`doubt_ns`."""
        return farm_ns - (self.low + self.high) // 2

    @property
    def doubt_ns(self) -> int:
        """By how much that may be wrong, either way."""
        return (self.high - self.low + 1) // 2


def narrow(before: FarmTime | None, sent_ns: int, farm_ns: int, received_ns: int) -> FarmTime:
    """What one more answer tells: the farm's clock showed ``farm_ns`` at some instant between the other two."""
    low, high = farm_ns - received_ns, farm_ns - sent_ns
    return FarmTime(low, high) if before is None else FarmTime(max(low, before.low), min(high, before.high))


class Asker:
    """One connection to the data server on ``port``; an operator's if it may change things."""

    def __init__(self, port: int, *, operator: bool = True) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = wire.FrameParser()
        self._come: list[Message] = []
        if operator:
            self.ask(Hello(PROTOCOL, "operator", "bench"), Hello)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, question: Message, wanted: type[M]) -> M:
        """The answer. Raises RuntimeError for any other."""
        self._socket.sendall(wire.encode(question.frame()))
        while not self._come:
            data = self._socket.recv(65536)
            if not data:
                raise RuntimeError(f"the data server ended the connection instead of answering {question.VERB}")
            self._come.extend(read(frame, Side.SERVER) for frame in self._parser.feed(data))
        answer = self._come.pop(0)
        if isinstance(answer, No):
            raise RuntimeError(f"{question.VERB}: {answer.code}: {answer.why.decode(errors='replace')}")
        if not isinstance(answer, wanted):
            raise RuntimeError(f"expected {wanted.VERB}, and {answer.VERB} came")
        return answer

    def json(self, question: Message) -> Any:
        """What an ANSWER says."""
        return json.loads(self.ask(question, Answer).json)

    def publish(self, dataset: str, version: str, when: str) -> Accepted:
        """Schedule a version that the data server has; ``when`` as in PUBLISH."""
        return self.ask(Publish(dataset, version, when), Accepted)


def farm_time(port: int, questions: int = 100, clock: Callable[[], int] = raw_ns) -> FarmTime:
    """How the farm's clock and the machine's stand: one runs at the rate of the other, so every answer tells more."""
    found: FarmTime | None = None
    with Asker(port, operator=False) as asker:
        for _ in range(questions):
            sent = clock()
            farm_ns = asker.ask(Time(), Now).farm_ns
            found = narrow(found, sent, farm_ns, clock())
    assert found is not None
    return found
