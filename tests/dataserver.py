"""A data server in memory: all its parts on a state directory, no threads, and clocks that the test moves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock

from farmsyncd.core import ranges
from farmsyncd.core.messages import Message
from farmsyncd.core.messages.content import Chunk, Lack, Offer
from farmsyncd.core.messages.greeting import PROTOCOL, Hello
from farmsyncd.core.messages.operating import Accepted, Answer, Publish
from farmsyncd.core.snapshot import Entry, Kind, Manifest, encode_pieces
from farmsyncd.data.config import DataConfig
from farmsyncd.data.wiring import Parts, assemble
from farmsyncd.edges.content.packing import packed_chunks
from farmsyncd.edges.content.tree import scan
from farmsyncd.edges.timing.farmclock import FarmClock
from farmsyncd.edges.workthread import WorkThread
from tests.wire_pair import Recorder, WirePair

P = ParamSpec("P")
T = TypeVar("T")
SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


class NoThread(WorkThread):
    """Work is done where it is asked for, at once."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return maybeDeferred(work, *args, **kwargs)

    def stop(self) -> Deferred[None]:
        return succeed(None)


@attrs.define
class Hands:
    """A clock that the test sets: raw time, wall time and farm time are one."""

    ns: int = START

    def now_ns(self) -> int:
        return self.ns

    def machine_ns(self, local_ns: int) -> int:
        return local_ns

    def pass_(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)


class Peer:
    """One end of a connection to the data server; ``address`` is where it seems to come from."""

    def __init__(self, parts: Parts, role: str | None, name: str, address: str, **features: str) -> None:
        self.heard = Recorder()
        gate = parts.links.new_gate()
        hello = None
        if role is not None:
            hello = Hello(PROTOCOL, role, name, tuple(f"{key}={value}" for key, value in features.items()))
        self.pair = WirePair(self.heard, gate, me=hello)
        self.pair.server.address = address
        self.pair.flush()

    def say(self, *messages: Message) -> list[Message]:
        """Send messages; what came back, and what had come before and was not taken yet."""
        self.pair.client.send(*messages)
        return self.take()

    def take(self) -> list[Message]:
        """What has come since the last time."""
        self.pair.flush()
        came, self.heard.messages = self.heard.messages, []
        return came

    def ask(self, message: Message) -> Message:
        """Send a message; its one answer."""
        answers = self.say(message)
        assert len(answers) == 1, answers
        return answers[0]

    def upload(self, tree: Path) -> str:
        """Offer the tree and send what is lacking; its version."""
        scanned = scan(tree, threads=1)
        version = scanned.manifest.version
        lack = self.ask(Offer(version, tuple(encode_pieces(scanned.manifest))))
        assert isinstance(lack, Lack), lack
        numbers = ranges.read(lack.ranges, len(scanned.manifest.distinct_chunks()))
        for chunk in packed_chunks(scanned, numbers, 1):
            assert not self.say(Chunk(chunk.digest, chunk.codec, chunk.length, bytes(chunk.packed)))
        return version

    def publish(self, dataset: str, tree: Path, when: str = "in:10000000000") -> Accepted:
        """Upload the tree and publish it."""
        answer = self.ask(Publish(dataset, self.upload(tree), when))
        assert isinstance(answer, Accepted), answer
        return answer

    def leave(self) -> None:
        """Hang up."""
        self.pair.client.close("the test is done")
        self.pair.flush()
        self.pair.advance(10)

    @property
    def gone(self) -> str | None:
        """The reason of the connection's end, if it has ended."""
        return self.heard.losses[0] if self.heard.losses else None


class Room:
    """A data server's parts, restartable, with peers that come and go."""

    def __init__(self, state: Path, **config: Any) -> None:
        self.hands = Hands()
        self.clock = Clock()
        state.mkdir(parents=True, exist_ok=True)
        self.config = DataConfig(state=state, listen="tcp:0", **config)
        self.peers: list[Peer] = []
        self.parts = self._assemble()

    def _assemble(self) -> Parts:
        clock = FarmClock(self.config.state / "farmtime", self.hands, self.hands.now_ns, "one boot")
        return assemble(self.config, self.clock, clock, NoThread, self.clock)

    def restart(self) -> None:
        """As after a crash: nothing of what was in memory is left, all connections are gone."""
        self.close()
        self.parts = self._assemble()

    def close(self) -> None:
        """Leave nothing behind."""
        for peer in self.peers:
            peer.leave()
        self.peers.clear()
        self.parts.catalog.close()

    def peer(self, role: str | None, name: str = "tester", address: str = "127.0.0.1:9", **features: str) -> Peer:
        """A new connection."""
        peer = Peer(self.parts, role, name, address, **features)
        self.peers.append(peer)
        return peer

    def operator(self, address: str = "127.0.0.1:9") -> Peer:
        """A new connection of the command."""
        return self.peer("operator", address=address)

    def pass_(self, seconds: float) -> None:
        """Let farm time pass; nobody's timers run."""
        self.hands.pass_(seconds)


def told(answer: Message) -> Any:
    """What is in an ANSWER, which ``answer`` must be."""
    assert isinstance(answer, Answer), answer
    return json.loads(answer.json)


def tree(path: Path, **files: str | bytes) -> Path:
    """A directory with these files (``__`` in a name is a dot), replacing what was there."""
    path.mkdir(parents=True, exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    for name, content in files.items():
        file = path / name.replace("__", ".")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(file, (1, 1))  # two files of one content are equal
    return path


def tiny_manifest(mark: int) -> Manifest:
    """A version without content, each ``mark`` another one."""
    return Manifest.of([Entry(f"empty-{mark}".encode(), Kind.DIR)])
