"""Two links joined in memory, and sessions that write down what they hear: for tests of whatever talks over links."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump, connect

from farmsyncd.core.messages import Message, Side
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.edges.link import Link, LinkSettings, Session

NODE = Hello(PROTOCOL, "node", "web-1", ("software=test",))
DATA = Hello(PROTOCOL, "data", "shop-data", ())


class Recorder:
    """A session that keeps what it hears; ``react`` is called with each message."""

    def __init__(self, react: Callable[[Link, Message], None] | None = None) -> None:
        self.hello: Hello | None = None
        self.messages: list[Message] = []
        self.losses: list[str] = []
        self._react = react

    def greeted(self, _link: Link, hello: Hello) -> None:
        assert self.hello is None
        self.hello = hello

    def received(self, link: Link, message: Message) -> None:
        self.messages.append(message)
        if self._react is not None:
            self._react(link, message)

    def lost(self, _link: Link, reason: str) -> None:
        self.losses.append(reason)


class WirePair:
    """A client's link and a server's, over iosim, on one clock that only the test moves."""

    def __init__(
        self,
        client: Session,
        server: Session,
        *,
        me: Hello | None = NODE,
        data: Hello = DATA,
        settings: LinkSettings | None = None,
        server_settings: LinkSettings | None = None,
    ) -> None:
        self.clock = Clock()
        self.client = Link(client, me, Side.CLIENT, self.clock, settings)
        self.server = Link(server, data, Side.SERVER, self.clock, server_settings or settings)
        self.client_end = FakeTransport(self.client, isServer=False)
        self.server_end = FakeTransport(self.server, isServer=True)
        self.pump: IOPump = connect(self.server, self.server_end, self.client, self.client_end, greet=False)

    def flush(self) -> None:
        """Move bytes until none move."""
        self.pump.flush()

    def advance(self, seconds: float) -> None:
        """Let time pass, and move what is sent meanwhile."""
        self.clock.advance(seconds)
        self.flush()
