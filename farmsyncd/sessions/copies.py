"""What a session is: a copy that can be trusted, or what the database says.

A copy is trusted when it is at least as new as what the client has seen, has not expired, and either the store knows
that nothing has changed since (``generation``) or, where the store cannot know, it was checked less than
``revalidate_after_s`` ago. The instant and the generation that a copy is given were read *before* the database was
asked: what changes while the answer is on its way is never taken for known.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from farmsyncd.core.session.faults import StoreUnavailable
from farmsyncd.core.session.token import Token
from farmsyncd.sessions.cache import Copy, SessionCache, short
from farmsyncd.sessions.settings import SessionSettings
from farmsyncd.sessions.stores.base import Lifetime, Row, Same, Store, Written
from farmsyncd.sessions.sweeping import Sweeping

log = logging.getLogger("farmsync.sessions")

_TOUCH_BELOW = 0.9  # of the idle window


@attrs.frozen
class Question:
    """What was known before the database was asked about a session: ``seen`` is the copy that there was."""

    digest: bytes
    seen: Copy | None
    ticket: int
    now_s: float
    generation: int | None
    idle_s: float

    def copy(self, version: int, state: bytes, answer: Row | Same | Written) -> Copy:
        """The copy that the answer to this question makes."""
        idle_s, absolute_s = answer.idle_left_us / 1e6, answer.absolute_left_us / 1e6
        lives_longer_if_touched = idle_s < absolute_s
        return Copy(
            digest=self.digest,
            version=version,
            state=state,
            checked_s=self.now_s,
            generation=self.generation,
            until_s=self.now_s + min(idle_s, absolute_s),
            touch_from_s=self.now_s + idle_s - self.idle_s * _TOUCH_BELOW if lives_longer_if_touched else math.inf,
        )


class Copies:
    """The copies that this process has, and the way to the database. May be used from any thread."""

    def __init__(self, store: Store, settings: SessionSettings, clock: Callable[[], float], sweeping: Sweeping) -> None:
        self.store = store
        self.clock = clock
        self._sweeping = sweeping
        self.cache = SessionCache(settings.cache_entries, settings.cache_bytes)
        self._revalidate_after_s = settings.revalidate_after_s
        self._idle_s = settings.idle_s
        self._counts: Counter[str] = Counter()
        self.away: str | None = None
        """Why the last use of the database failed; None when it answered."""
        self.renew()

    def renew(self) -> None:
        """In a process that was just forked: a lock may be held by a thread that is not here.

        There are no copies at first: the store's connection is another one, whose generations begin anew.
        """
        self._lock = threading.Lock()
        self._started = False
        self.cache.renew()
        self._sweeping.renew()

    def trusted(self, token: Token) -> Copy | None:
        """A copy that can be shown without asking the database."""
        copy = self.cache.get(token.digest)
        if copy is not None and copy.version >= token.version and (now := self.clock()) < copy.until_s:
            generation = self.store.generation()
            if generation == copy.generation and (
                generation is not None or now - copy.checked_s < self._revalidate_after_s
            ):
                return copy
        self.count("untrusted")
        return None

    def read(self, token: Token) -> Copy | None:
        """Ask the database, once; None when there is no such session (any more)."""
        with self.asking(token.digest) as question:
            seen = question.seen
            self.count("misses" if seen is None else "revalidations")
            if seen is None:
                answer: Row | Same | None = self.store.read(token.digest)
            else:
                answer = self.store.revalidate(token.digest, seen.version)
        if answer is None:
            if seen is not None:
                self.cache.forget(token.digest)
            return None
        if seen is not None and isinstance(answer, Same):
            copy = self.keep(question, question.copy(seen.version, seen.state, answer))
        else:
            assert isinstance(answer, Row), "expected a row from a store that knows of no version"
            copy = self.keep(question, question.copy(answer.version, answer.state, answer))
        if copy.version < token.version:
            log.debug("session %s: cookie of version %d, row of %d", short(copy.digest), token.version, copy.version)
        return copy

    def keep(self, question: Question, copy: Copy) -> Copy:
        """Remember what the database answered."""
        self.cache.put(copy, question.ticket, question.seen)
        return copy

    def touch_is_due(self, copy: Copy, life: Lifetime) -> bool:
        """Whether less than nine tenths of the idle time are left of a session that lives as ``life`` says."""
        return self.clock() >= copy.touch_from_s + (self._idle_s - life.idle_us / 1e6) * _TOUCH_BELOW

    def newest(self, copy: Copy) -> Copy:
        """A newer copy of the same session that was kept meanwhile, or this one."""
        there = self.cache.peek(copy.digest)
        return copy if there is None or there.version <= copy.version else there

    @contextmanager
    def asking(self, digest: bytes) -> Iterator[Question]:
        """Around each use of the database, which is said to be away, or back, in the log."""
        if not self._started:
            self._start()
        ticket, seen = self.cache.ticket(), self.cache.peek(digest)
        question = Question(digest, seen, ticket, self.clock(), self.store.generation(), self._idle_s)
        try:
            yield question
        except StoreUnavailable as error:
            if self._turned(str(error)):
                log.warning("the sessions' database is away: %s", error)
            raise
        if self.away is not None and self._turned(None):
            log.warning("the sessions' database is back")

    @contextmanager
    def writing(self, digest: bytes) -> Iterator[Question]:
        """As :meth:`asking`. When it fails, the copy is forgotten: whether it was written is not known."""
        try:
            with self.asking(digest) as question:
                yield question
        except BaseException:
            self.cache.forget(digest)
            raise

    def _start(self) -> None:
        """With the first use of the database, and not before: until then the process may fork."""
        with self._lock:
            if self._started:
                return
            self._started = True
        self.store.listen(self.cache.forget)
        self._sweeping.begin()

    def _turned(self, away: str | None) -> bool:
        with self._lock:
            turned, self.away = (self.away is None) != (away is None), away
        return turned

    def count(self, what: str) -> None:
        """One more."""
        with self._lock:
            self._counts[what] += 1

    def counted(self) -> Counter[str]:
        """How many there were of each."""
        with self._lock:
            return Counter(self._counts)
