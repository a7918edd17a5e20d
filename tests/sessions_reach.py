"""A node's way to the database in the farm of tests/sessions_world.py: where the truth is told of each write, where
failures happen, and where other things happen in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Store, Written
from tests.sessions_truth import decoded

if TYPE_CHECKING:
    from tests.sessions_scene import Surroundings


class Reach:
    """A node's way to the database: tells the truth of each write, and fails and tarries when the test wants it to.

    ``away``: nothing is reached. ``lose``: so many of the next writes are done, and their answers lost.
    """

    def __init__(self, world: Surroundings, store: Store, exact: bool) -> None:
        self._world = world
        self.store = store
        self._exact = exact
        self.away = False
        self.lose = 0
        self.ended: Callable[[bytes | None], None] | None = None

    def prepare(self) -> None:
        self.store.prepare()

    def create(self, digest: bytes, state: bytes, life: Lifetime) -> Written:
        self._begin()
        written = self.store.create(digest, state, life)
        self._world.truth.created(self._world.acting.doing, digest, state, self._world.now_s)
        self._end(True)
        return written

    def read(self, digest: bytes) -> Row | None:
        self._begin()
        answer = self.store.read(digest)
        self._expect(digest, answer)
        self._end(False)
        return answer

    def revalidate(self, digest: bytes, version: int) -> Row | Same | None:
        self._begin()
        answer = self.store.revalidate(digest, version)
        if isinstance(answer, Same):
            life = self._world.truth.living(digest, self._world.now_s)
            assert life is not None
            assert life.version == version
        else:
            self._expect(digest, answer)
        self._end(False)
        return answer

    def write(self, digest: bytes, version: int, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin()
        answer = self.store.write(digest, version, state, life)
        if isinstance(answer, Written):
            self._world.truth.written(self._world.acting.doing, digest, answer.version, state, self._world.now_s)
        else:
            self._expect(digest, answer)
        self._end(isinstance(answer, Written))
        return answer

    def rotate(self, old: bytes, version: int, new: bytes, state: bytes, life: Lifetime) -> Written | Row | None:
        self._begin()
        answer = self.store.rotate(old, version, new, state, life)
        if isinstance(answer, Written):
            self._world.truth.rotated(self._world.acting.doing, old, new, answer.version, state, self._world.now_s)
            self._world.tell(old)
        else:
            self._expect(old, answer)
        self._end(isinstance(answer, Written))
        return answer

    def delete(self, digest: bytes) -> bool:
        self._begin()
        there = self.store.delete(digest)
        assert there == (self._world.truth.living(digest, self._world.now_s) is not None)
        self._world.truth.deleted(self._world.acting.doing, digest, self._world.now_s)
        if there:
            self._world.tell(digest)
        self._end(there)
        return there

    def sweep(self, limit: int) -> int | None:
        return self.store.sweep(limit)

    def find(self, prefix: bytes, limit: int) -> Any:
        return self.store.find(prefix, limit)

    def stats(self) -> Any:
        return self.store.stats()

    def generation(self) -> int | None:
        return self.store.generation() if self._exact and not self.away else None

    def listen(self, ended: Callable[[bytes | None], None]) -> None:
        self.ended = ended

    def close(self) -> None:
        pass

    def _begin(self) -> None:
        self._world.acting.asked += 1
        self._world.interrupted("before")
        if self.away:
            self._world.acting.failed = True
            raise StoreUnavailable("the test has taken the database away")

    def _end(self, wrote: bool) -> None:
        self._world.interrupted("after")
        if self.lose and wrote:
            self.lose -= 1
            self._world.acting.failed = True
            self._world.counts["write done, answer lost"] += 1
            raise StoreUnavailable("the test has lost the answer")

    def _expect(self, digest: bytes, row: Row | None) -> None:
        life = self._world.truth.living(digest, self._world.now_s)
        if row is None:
            assert life is None, "the database does not find a session that lives"
        else:
            assert life is not None, "the database finds a session that has ended"
            assert (row.version, decoded(row.state)) == (life.version, life.state)
