"""What a response's headers say because a session was read or stored: the same for every framework."""

from __future__ import annotations

from collections.abc import Sequence


def added_headers(
    present: Sequence[tuple[str, str]], set_cookies: Sequence[str], accessed: bool
) -> list[tuple[str, str]]:
    """The headers to append to the application's own, ``present``.

    A page that was made from a session is another one for each cookie; one that carries a session's cookie must not
    be handed to the next client by a cache on the way, unless the application has said itself what caches may do.
    """
    added = [("Set-Cookie", value) for value in set_cookies]
    if accessed and not {"cookie", "*"} & set(_listed("vary", present)):
        added.append(("Vary", "Cookie"))
    if set_cookies and not any(name.lower() == "cache-control" for name, _ in present):
        added.append(("Cache-Control", 'no-cache="Set-Cookie"'))
    return added


def _listed(header: str, present: Sequence[tuple[str, str]]) -> list[str]:
    return [one.strip().lower() for name, value in present if name.lower() == header for one in value.split(",")]
