"""A browser's cookie jar for one site, as RFC 6265bis has it: which cookies it takes, keeps, and sends back.

``refused`` lists what the browser did not take, each with the reason: a test can promise that nothing was.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

_LONGEST_PAIR = 4096
_LONGEST_ATTRIBUTE = 1024


@attrs.frozen(kw_only=True)
class Cookie:
    """One cookie as it is kept; ``ends_at_s`` is None for one that goes with the browser."""

    name: str
    value: str
    path: str
    domain: str
    host_only: bool
    secure: bool
    http_only: bool
    same_site: str | None
    ends_at_s: float | None


class Browser:
    """Keeps the cookies of ``host``. Its time stands still, except for :meth:`later`."""

    def __init__(self, host: str = "shop.example") -> None:
        self.refused: list[tuple[str, str]] = []
        self._host = host
        self._now_s = 0.0
        self._kept: dict[tuple[str, str, str], Cookie] = {}

    def receive(self, set_cookies: Iterable[str], *, secure: bool = False, path: str = "/") -> None:
        """Obey the values of the ``Set-Cookie`` headers of an answer to a request for ``path``."""
        for text in set_cookies:
            reason = self._receive_one(text, secure, path)
            if reason is not None:
                self.refused.append((text, reason))

    def header(self, *, secure: bool = False, path: str = "/") -> str | None:
        """The ``Cookie`` header of a request for ``path``, or None; longer paths first, then older cookies."""
        fitting = [one for one in self.cookies if self._fits(one, secure, path)]
        fitting.sort(key=lambda one: -len(one.path))
        return "; ".join(f"{one.name}={one.value}" for one in fitting) or None

    @property
    def cookies(self) -> list[Cookie]:
        """All that are kept and have not ended, the oldest first."""
        return [one for one in self._kept.values() if one.ends_at_s is None or one.ends_at_s > self._now_s]

    def value(self, name: str) -> str | None:
        """The value of the one cookie of this name, or None."""
        found = [one.value for one in self.cookies if one.name == name]
        assert len(found) < 2, f"expected one cookie named {name}, found {len(found)}"
        return found[0] if found else None

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds

    def restart(self) -> None:
        """Close the browser and open it again: cookies without an end are gone."""
        self._kept = {key: one for key, one in self._kept.items() if one.ends_at_s is not None}

    def twin(self) -> Browser:
        """Another browser with the same cookies: a copy that an attacker made, or a backup that was restored."""
        other = Browser(self._host)
        other._now_s, other._kept = self._now_s, dict(self._kept)
        return other

    def _receive_one(self, text: str, secure: bool, path: str) -> str | None:
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            return "control characters"
        pair, *rest = text.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            return "no NAME=VALUE"
        if len(name) + len(value) > _LONGEST_PAIR:
            return f"longer than {_LONGEST_PAIR} characters"
        cookie = self._with_attributes(name, value, _attributes(rest), path)
        reason = self._objection(cookie, secure)
        if reason is not None:
            return reason
        key = (cookie.name, cookie.domain, cookie.path)
        if cookie.ends_at_s is not None and cookie.ends_at_s <= self._now_s:
            self._kept.pop(key, None)
        else:
            self._kept[key] = cookie  # one that was there keeps its place, as in browsers
        return None

    def _with_attributes(self, name: str, value: str, said: dict[str, str], request_path: str) -> Cookie:
        cookie_path = said.get("path", "")
        max_age = said.get("max-age")
        ends_at_s = None if max_age is None else self._now_s + int(max_age)
        return Cookie(
            name=name,
            value=value,
            path=cookie_path if cookie_path.startswith("/") else _directory(request_path),
            domain=said.get("domain", "").lstrip(".").lower() or self._host,
            host_only=not said.get("domain"),
            secure="secure" in said,
            http_only="httponly" in said,
            same_site=said.get("samesite"),
            ends_at_s=ends_at_s,
        )

    def _objection(self, cookie: Cookie, secure: bool) -> str | None:
        prefix = cookie.name.lower()
        whole_host = cookie.secure and cookie.path == "/" and cookie.host_only
        checks = [
            (cookie.secure and not secure, "Secure, over plain HTTP"),
            (self._host != cookie.domain and not self._host.endswith("." + cookie.domain), "of another domain"),
            (prefix.startswith("__secure-") and not cookie.secure, "__Secure- without Secure"),
            (prefix.startswith("__host-") and not whole_host, "__Host- without Secure and Path=/, or with Domain"),
            ((cookie.same_site or "").lower() == "none" and not cookie.secure, "SameSite=None without Secure"),
            (not secure and self._shadows_secure(cookie), "would hide a Secure cookie, over plain HTTP"),
        ]
        return next((reason for objected, reason in checks if objected), None)

    def _shadows_secure(self, cookie: Cookie) -> bool:
        return any(one.secure and one.name == cookie.name for one in self.cookies)

    def _fits(self, cookie: Cookie, secure: bool, path: str) -> bool:
        if cookie.secure and not secure:
            return False
        below = cookie.path if cookie.path.endswith("/") else cookie.path + "/"
        return path == cookie.path or path.startswith(below)


def _attributes(parts: list[str]) -> dict[str, str]:
    said = {}
    for part in parts:
        name, _, value = (piece.strip() for piece in part.partition("="))
        if len(value) <= _LONGEST_ATTRIBUTE:
            said[name.lower()] = value
    return said


def _directory(path: str) -> str:
    return path[: path.rfind("/")] or "/"
