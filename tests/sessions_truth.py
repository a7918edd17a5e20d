"""What is true about all sessions of a farm, told by every write that a database has done: the model of the model test.

It knows nothing of merging, copies or cookies. It sees each write where the database does it, and checks there that it
is what one request did, over what the request before it had left: so nothing is lost, and nothing comes back.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import attrs

from farmsyncd.core.session.encoding import decode_value, split

State = dict[str, Any]
_NONE = object()


@attrs.define
class Life:
    """One id: every version that there was with its state and when it came, and when and why it ended."""

    digest: bytes
    created_s: float
    idle_until_s: float
    absolute_until_s: float
    states: dict[int, State] = attrs.Factory(dict)
    since_s: dict[int, float] = attrs.Factory(dict)
    version: int = 0
    ended_s: float | None = None
    why: str = ""

    @property
    def state(self) -> State:
        """The newest."""
        return self.states[self.version]

    @property
    def expires_s(self) -> float:
        return min(self.idle_until_s, self.absolute_until_s)

    @property
    def ends_s(self) -> float:
        return self.expires_s if self.ended_s is None else min(self.ended_s, self.expires_s)

    def lives(self, now_s: float) -> bool:
        return self.ended_s is None and now_s < self.expires_s


@attrs.define
class Doing:
    """What one request has done to its session, as the application sees it, and not yet stored.

    ``base`` is the state that its changes are over, ``view`` with them; ``wrote`` are the versions that it made.
    """

    base: State = attrs.Factory(dict)
    view: State = attrs.Factory(dict)
    ending: bytes | None = None
    rotating: bool = False
    wrote: list[int] = attrs.Factory(list)

    def changes(self) -> State:
        """Each key that is not what it was; ``_NONE`` for one that is gone."""
        keys = {**self.base, **self.view}
        return {
            key: self.view.get(key, _NONE)
            for key in keys
            if not same(self.view.get(key, _NONE), self.base.get(key, _NONE))
        }

    def shows(self, state: State) -> None:
        """From now on the application sees this state, without changes of its own."""
        self.base, self.view = deepcopy(state), deepcopy(state)

    def unstored(self) -> bool:
        return bool(self.changes()) or self.ending is not None


def same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def decoded(state: bytes) -> State:
    return {key: decode_value(raw) for key, raw in split(state).items()}


class Truth:
    """All ids that were ever stored. ``idle_s`` and ``absolute_s`` are the farm's settings."""

    def __init__(self, idle_s: float, absolute_s: float) -> None:
        self.lives: dict[bytes, Life] = {}
        self._idle_s = idle_s
        self._absolute_s = absolute_s

    def living(self, digest: bytes, now_s: float) -> Life | None:
        life = self.lives.get(digest)
        return life if life is not None and life.lives(now_s) else None

    def created(self, doing: Doing, digest: bytes, state: bytes, now_s: float) -> None:
        """A request has stored a new session."""
        assert digest not in self.lives, "I-12: an id was stored a second time"
        assert doing.ending is None, "a new session was stored before the old one had ended"
        assert decoded(state) == doing.view, "I-10: a new session is not what the request put in"
        life = Life(digest, now_s, now_s + self._idle_s, now_s + self._absolute_s)
        self.lives[digest] = life
        self._now(life, 1, state, now_s, doing)

    def written(self, doing: Doing, digest: bytes, version: int, state: bytes, now_s: float) -> None:
        """A request has made a version of a session that was there."""
        life = self.living(digest, now_s)
        assert life is not None, "I-12: a session that had ended was written"
        assert version == life.version + 1, "a write did not count one version"
        self._check(doing, life, state)
        life.idle_until_s = now_s + self._idle_s
        self._now(life, version, state, now_s, doing)

    def rotated(self, doing: Doing, old: bytes, new: bytes, version: int, state: bytes, now_s: float) -> None:
        """A request has given a session another id."""
        assert doing.rotating, "a session was rotated that nobody asked for"
        life = self.living(old, now_s)
        assert life is not None, "I-12: a session that had ended was rotated"
        assert new not in self.lives, "I-12: an id was stored a second time"
        assert version == life.version + 1, "a rotation did not count one version"
        self._check(doing, life, state)
        life.ended_s, life.why = now_s, "rotated"
        new_life = Life(new, life.created_s, now_s + self._idle_s, life.absolute_until_s)
        self.lives[new] = new_life
        self._now(new_life, version, state, now_s, doing)

    def deleted(self, doing: Doing, digest: bytes, now_s: float) -> None:
        """A request has ended a session, which is not there now."""
        assert doing.ending == digest, "a session was deleted that nobody destroyed"
        doing.ending = None
        life = self.living(digest, now_s)
        if life is not None:
            life.ended_s, life.why = now_s, "destroyed"

    def _check(self, doing: Doing, life: Life, state: bytes) -> None:
        """Each write is what its request did over what there was, and it knew what there was where it changed it."""
        changes = doing.changes()
        for key in changes:
            assert same(life.state.get(key, _NONE), doing.base.get(key, _NONE)), (
                f"I-10: a change of {key!r} was lost: the request saw {doing.base.get(key)!r} and wrote over "
                f"{life.state.get(key)!r}"
            )
        expected = {key: value for key, value in {**life.state, **changes}.items() if value is not _NONE}
        assert decoded(state) == expected, "I-10: what was stored is not what was there with this request's changes"

    def _now(self, life: Life, version: int, state: bytes, now_s: float, doing: Doing) -> None:
        life.version = version
        life.states[version] = decoded(state)
        life.since_s[version] = now_s
        doing.wrote.append(version)
        doing.rotating = False
        doing.shows(life.state)
