"""The cookie of a session: reading a ``Cookie`` header that anybody may have written, and writing ``Set-Cookie``.

The cookie ``NAME=ID.VERSION`` says which state its client has seen, so that no node shows it an older one. Requests of
one client can run at the same time, though, and their responses can arrive in another order than their changes were
made in: the last cookie to arrive would then not be that of the newest state. So only a response that shows its own
request's change of what the client has seen, and nobody else's, sets the cookie. One that shows what others changed
sets a *marker* instead: a small cookie of its own name, ``NAME-vVERSION-DIGEST``, which no response with another
version or of another session overwrites. A request presents the highest version that its cookie or a marker of its
session names.

A marker has done its work when no node trusts an older copy any more (``revalidate_after_s``), and when no response
with a lower version can still be on its way: one that takes longer than ten minutes from its commit does not arrive.
Once the client has one marker, each newer version that it is shown comes with a marker too, which replaces it. That is
enough: take a cookie of version W that comes late. The client has seen W or more before it came, and the first response
that showed it so much was to a request that presented less than W and did not write W: it set a marker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal, Protocol

import attrs

from farmsyncd.core.session.token import HIGHEST_VERSION, Token, read_token

_FARTHEST = 65_536
_MOST_CANDIDATES = 64
_MOST_DELETED = 16
_LATEST_RESPONSE_S = 600
_LONGEST_LIFE_S = 400 * 86_400  # browsers keep no cookie longer
_MARKER = re.compile(r"-v([1-9][0-9]{0,15})-([0-9a-f]{8})[ \t]*")


class CookieChoices(Protocol):
    """What is chosen about the cookie; ``CookieSettings`` has it."""

    @property
    def name(self) -> str:
        """The name, without the prefix that it may get."""

    @property
    def path(self) -> str:
        """``Path``."""

    @property
    def domain(self) -> str | None:
        """``Domain``; None for the very host that set it."""

    @property
    def secure(self) -> bool | None:
        """``Secure``; None for as the request was."""

    @property
    def same_site(self) -> Literal["Lax", "Strict", "None"]:
        """``SameSite``."""


@attrs.frozen
class Presented:
    """What a request presents: a token whose version is raised by its markers, and those markers' versions.

    ``token`` is None when there is no cookie that a server of ours could have made. Nothing here is to be believed:
    a client can write what it likes, and the row decides.
    """

    token: Token | None = None
    markers: tuple[int, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether the client has markers of this session."""
        return bool(self.markers)


NOTHING = Presented()


def cookie_name(choices: CookieChoices, secure: bool) -> str:
    """The name that the cookie has for a request that came over TLS (``secure``), or did not."""
    if is_secure(choices, secure) and choices.path == "/" and choices.domain is None:
        return f"__Host-{choices.name}"
    return choices.name


def is_secure(choices: CookieChoices, secure: bool) -> bool:
    """Whether the cookie is ``Secure``: as was chosen, else as the request was."""
    return secure if choices.secure is None else choices.secure


def presented(header: str | None, choices: CookieChoices, secure: bool) -> Presented:
    """What the ``Cookie`` header of a request presents. Of several cookies of our name the first one that can be ours.

    Other cookies may be as damaged as they like. The work is bounded: it does not look further than 64 KiB, nor at
    more than 64 cookies whose names begin like ours.
    """
    if not header:
        return NOTHING
    if len(header) > _FARTHEST:
        header = header[:_FARTHEST]
    token: Token | None = None
    markers: list[tuple[int, str]] = []
    for rest in _after(cookie_name(choices, secure), header):
        suffix, equals, value = rest.partition("=")
        if not suffix.strip(" \t"):
            if token is None and equals:
                token = read_token(value.strip(' \t"'))
        elif (found := _MARKER.fullmatch(suffix)) and value and int(found[1]) <= HIGHEST_VERSION:
            markers.append((int(found[1]), found[2]))
    if token is None:
        return NOTHING
    if not markers:
        return Presented(token)
    own = _whose(token)
    versions = tuple(sorted({version for version, whose in markers if whose == own}))
    if versions and versions[-1] > token.version:
        token = attrs.evolve(token, version=versions[-1])
    return Presented(token, versions)


def _after(name: str, header: str) -> Iterator[str]:
    """What follows ``name`` in each cookie whose name begins with it."""
    at = header.find(name)
    for _ in range(_MOST_CANDIDATES):
        if at < 0:
            return
        end = header.find(";", at)
        if end < 0:
            end = len(header)
        before = at - 1
        while before >= 0 and header[before] in " \t":
            before -= 1
        if before < 0 or header[before] == ";":
            yield header[at + len(name) : end]
        at = header.find(name, end)


def _whose(token: Token) -> str:
    """What tells a marker's session: of no use to anybody else."""
    return token.digest.hex()[:8]


def marker_life_s(revalidate_after_s: float) -> int | None:
    """How long markers live; None when none are needed because no copy is trusted without asking the database."""
    if revalidate_after_s <= 0:
        return None
    return int(min(math.ceil(min(revalidate_after_s, _LONGEST_LIFE_S)) + _LATEST_RESPONSE_S, _LONGEST_LIFE_S))


@attrs.frozen
class Change:
    """What becomes of one of the client's cookies: ``suffix`` follows the cookie's name, empty for the session's own.

    ``life_s`` is ``Max-Age``: None for as long as the browser is open, 0 to delete it.
    """

    suffix: str
    value: str = attrs.field(repr=False)
    life_s: int | None


def changes_to_show(
    seen: Presented, shown: Token, *, own_writes: int, life_s: int | None, marker_s: int | None
) -> list[Change]:
    """What a response that shows the state ``shown`` changes for a request that presented ``seen``.

    That is nothing when the client knows this version. ``own_writes`` is how many versions this request has written;
    ``life_s`` the cookie's ``Max-Age`` (None: until the browser is closed); ``marker_s`` is :func:`marker_life_s`, or
    None where no copy is trusted without knowing that it is the newest: then nothing hangs on the version.
    """
    token = seen.token
    if token is None or token.id != shown.id:
        return [Change("", shown.spell(), life_s)]  # the other id's markers stay: a late cookie of it may still come
    if shown.version <= token.version:
        return []
    changes = []
    alone = shown.version == token.version + own_writes
    if alone or (own_writes and marker_s is None):
        changes.append(Change("", shown.spell(), life_s))
    if marker_s is not None and (seen.markers or not alone):
        changes.append(marker_change(shown, marker_s))
    return changes + _without_markers(seen)


def changes_to_end() -> list[Change]:
    """What a response changes for a request that has ended the session which it presented. Its markers stay."""
    return [Change("", "", 0)]


def marker_change(token: Token, life_s: int) -> Change:
    """A marker of this version."""
    return Change(f"-v{token.version}-{_whose(token)}", "1", life_s)


def set_cookies(
    choices: CookieChoices,
    secure: bool,
    seen: Presented,
    shown: Token,
    *,
    own_writes: int,
    life_s: int | None,
    marker_s: int | None,
) -> list[str]:
    """:func:`changes_to_show` as the values of ``Set-Cookie``."""
    changes = changes_to_show(seen, shown, own_writes=own_writes, life_s=life_s, marker_s=marker_s)
    return [_spell(choices, secure, change) for change in changes]


def set_cookie(choices: CookieChoices, secure: bool, token: Token, life_s: int | None) -> str:
    """``Set-Cookie`` for a session; with ``life_s`` None, the cookie lives until the browser is closed."""
    return _spell(choices, secure, Change("", token.spell(), life_s))


def marker(choices: CookieChoices, secure: bool, token: Token, life_s: int) -> str:
    """``Set-Cookie`` for a marker."""
    return _spell(choices, secure, marker_change(token, life_s))


def delete_cookies(choices: CookieChoices, secure: bool) -> list[str]:
    """:func:`changes_to_end` as the values of ``Set-Cookie``."""
    return [_spell(choices, secure, change) for change in changes_to_end()]


def _without_markers(seen: Presented) -> list[Change]:
    """Without those that a newer one replaces; the lowest few at a time."""
    token = seen.token
    if token is None:
        return []
    return [Change(f"-v{one}-{_whose(token)}", "", 0) for one in seen.markers[:_MOST_DELETED]]


def _spell(choices: CookieChoices, secure: bool, change: Change) -> str:
    life = "" if change.life_s is None else f"; Max-Age={min(change.life_s, _LONGEST_LIFE_S)}"
    domain = "" if choices.domain is None else f"; Domain={choices.domain}"
    safe = "; Secure" if is_secure(choices, secure) else ""
    pair = f"{cookie_name(choices, secure)}{change.suffix}={change.value}"
    return f"{pair}{life}; Path={choices.path}{domain}{safe}; HttpOnly; SameSite={choices.same_site}"
