"""A node's bulk connection: manifests, chunks, and the difference for the common step."""

from __future__ import annotations

from functools import partial

from farmsyncd.core import ranges
from farmsyncd.core.messages.base import Message
from farmsyncd.core.messages.content import GetChunks, GetDelta, GetManifest, Sent
from farmsyncd.core.refusal import Refused
from farmsyncd.data.content.deltas import DeltaRack
from farmsyncd.data.content.library import Library
from farmsyncd.data.content.transfers import Transfers
from farmsyncd.data.sessions.turns import Turns
from farmsyncd.edges.link import Extent, Link
from farmsyncd.edges.workthread import WorkThread
from farmsyncd.errors import Unavailable

_SUSPECTS = 4096


class StagerRole:
    """Serves one node's staging.

    A chunk that is asked for again on one connection has not arrived as it should: it is verified on the disk first,
    and the node is told ``gone`` when it is damaged here.
    """

    def __init__(
        self, link: Link, library: Library, deltas: DeltaRack, transfers: Transfers, thread: WorkThread
    ) -> None:
        self._link = link
        self._library = library
        self._deltas = deltas
        self._transfers = transfers
        self._thread = thread
        self._turns = Turns(link)
        self._sent: dict[str, bytearray] = {}  # by version, a byte for each chunk

    def received(self, message: Message) -> None:
        """Answer what a stager asks."""
        match message:
            case GetManifest():
                self._turns.take(message, partial(self._manifest, message.version))
            case GetChunks():
                self._turns.take(message, partial(self._chunks, message))
            case GetDelta():
                self._turns.take(message, partial(self._delta, message))
            case _:
                self._turns.refuse(message, "a stager")

    def lost(self, _reason: str) -> None:
        """The link is gone."""
        self._turns.end()

    def _expect(self, version: str) -> None:
        if version not in self._library:
            raise Refused("gone", f"expected a version that is kept here, and {version} is not; ask for the schedule")

    async def _manifest(self, version: str) -> None:
        self._expect(version)
        await self._link.pour(iter((self._library.file(version),)))

    async def _chunks(self, asked: GetChunks) -> None:
        self._expect(asked.version)
        with self._library.using(asked.version):
            manifest = await self._library.manifest(asked.version)
            chunks = manifest.distinct_chunks()
            try:
                numbers = ranges.read(asked.ranges, len(chunks))
            except ValueError as error:
                raise Refused("bad", str(error)) from None
            await self._thread.run(self._verify_again, asked.version, numbers, chunks)
            extents = await self._thread.run(self._find, [chunks[number][0] for number in numbers])
            await self._transfers.send(self._link, lambda: extents)
        self._link.send(Sent(asked.version))

    def _find(self, digests: list[bytes]) -> list[Extent]:
        try:
            return list(self._library.store.frames(digests))
        except Unavailable as error:
            raise Refused("gone", str(error)) from error

    def _verify_again(self, version: str, numbers: list[int], chunks: list[tuple[bytes, int]]) -> None:
        sent = self._sent.setdefault(version, bytearray(len(chunks)))
        for number in [number for number in numbers if sent[number]][:_SUSPECTS]:
            digest = chunks[number][0]
            if not self._library.store.check(digest):
                raise Refused(
                    "gone", f"chunk {number} ({digest.hex()}) of {version} is damaged here; publish its tree again"
                )
        for number in numbers:
            sent[number] = 1

    async def _delta(self, asked: GetDelta) -> None:
        self._expect(asked.new)
        with self._library.using(asked.new):
            found = await self._deltas.find((asked.old, asked.new))
            if found is None:
                raise Refused("gone", f"there is no difference from {asked.old} to {asked.new}; ask for chunks")
            await self._transfers.send(self._link, lambda: [found])
        self._link.send(Sent(asked.new))
