"""A TCP relay that delays: what comes in on one of its ports goes out after that port's delay, each way.

Settings: a list of ``[port to connect to, seconds of delay]``; it says the list of its own ports. One process for all
of them, of which select(2) tells the time to the microsecond where epoll would round up to whole milliseconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from functools import partial

from bench import helper

MOST = 4 * 1024 * 1024  # bytes on their way in one direction, before no more is read


class Line:
    """One direction: bytes wait for ``delay`` seconds and are written to the far end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._loop = loop
        self._delay = delay
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self._pauses: set[str] = set()

    def put(self, data: bytes | None) -> None:
        """Something came; None is the end."""
        self._waiting.append((self._loop.time() + self._delay, data))
        self._size += len(data or b"")
        if self._size > MOST:
            self.pause("full")
        self._deliver()

    def open(self, target: asyncio.Transport) -> None:
        """The far end is there."""
        self.target = target
        self._deliver()

    def close(self) -> None:
        """An end is gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def pause(self, why: str) -> None:
        """Read no more for now."""
        if not self._pauses and self.source is not None and not self.source.is_closing():
            self.source.pause_reading()
        self._pauses.add(why)

    def resume(self, why: str) -> None:
        """Read again, unless there is another reason not to."""
        if why in self._pauses:
            self._pauses.discard(why)
            if not self._pauses and self.source is not None and not self.source.is_closing():
                self.source.resume_reading()

    def _deliver(self) -> None:
        if self.target is None or self._closed:
            return
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, data = self._waiting.popleft()
            if data is not None:
                self._size -= len(data)
                self.target.write(data)
            elif self.target.can_write_eof():
                self.target.write_eof()
        if self._size <= MOST // 2:
            self.resume("full")
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0][0], self._deliver) if self._waiting else None


class End(asyncio.Protocol):
    """One end of a relayed connection: what comes goes into ``out``; ``back`` brings what the other end said."""

    def __init__(self, out: Line, back: Line, begun: Callable[[], None] = lambda: None) -> None:
        self._out = out
        self._back = back
        self._begun = begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._out.source = transport
        self._back.open(transport)
        self._begun()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._out.put(data)

    def eof_received(self) -> bool:
        """No more comes from here; the other end may go on."""
        self._out.put(None)
        return True

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._back.pause("slow")

    def resume_writing(self) -> None:
        """The peer takes more."""
        self._back.resume("slow")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """One end is gone: so is the other, at once."""
        self._out.close()
        self._back.close()
        if self._out.target is not None:
            self._out.target.abort()


def accept(loop: asyncio.AbstractEventLoop, port: int, delay: float, tasks: set[asyncio.Task[object]]) -> End:
    """The near end of a new connection, which makes the far one."""
    there, back = Line(loop, delay), Line(loop, delay)

    async def connect() -> None:
        try:
            await loop.create_connection(lambda: End(back, there), "127.0.0.1", port)
        except OSError:
            if there.source is not None:
                there.source.abort()

    def begun() -> None:
        task: asyncio.Task[object] = loop.create_task(connect())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return End(there, back, begun)


async def listen(relays: list[tuple[int, float]]) -> list[int]:
    """Relay for ever; the ports, in the order of ``relays``."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[object]] = set()
    ports: list[int] = []
    for port, delay in relays:
        server = await loop.create_server(partial(accept, loop, port, delay, tasks), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    return ports


async def _main() -> None:
    helper.say(await listen(helper.settings()))
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_main())
