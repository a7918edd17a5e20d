"""The id of a session, and the token ``ID.VERSION`` that a client keeps in its cookie.

An id is 256 random bits, spelled in 43 characters of URL-safe base64. Whoever knows an id has the session, so ids are
never stored or logged: a database and a log see the digest.
"""

from __future__ import annotations

import base64
import hashlib
import re

import attrs

ENTROPY_BYTES = 32
HIGHEST_VERSION = 2**53
_LONGEST = 43 + 1 + len(str(HIGHEST_VERSION))
# The last character of an id carries four bits of the 256 and two that are zero; no other spelling was ever issued.
_TOKEN = re.compile(r"([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])\.([1-9][0-9]{0,15})")


@attrs.frozen
class Token:
    """A session's id and the version of its state that the client has seen. Its representation does not show the id."""

    id: str = attrs.field(repr=False)
    version: int
    digest: bytes = attrs.field(init=False, eq=False, repr=lambda digest: digest.hex()[:12])
    """SHA-256 of the id's characters: what the database and the logs know a session by."""

    @digest.default
    def _digest_of_the_id(self) -> bytes:
        return hashlib.sha256(self.id.encode("ascii")).digest()

    def spell(self) -> str:
        """What the cookie carries; :func:`read_token` reads it."""
        return f"{self.id}.{self.version}"


def new_id(entropy: bytes) -> str:
    """The id that these 32 random bytes make. Raises ValueError for another number of bytes."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"expected {ENTROPY_BYTES} random bytes for an id, found {len(entropy)}")
    return base64.urlsafe_b64encode(entropy)[:43].decode("ascii")


def read_token(text: str) -> Token | None:
    """The token that a client presents, or None for whatever is not spelled exactly as :meth:`Token.spell` does."""
    if len(text) > _LONGEST:
        return None
    found = _TOKEN.fullmatch(text)
    if found is None:
        return None
    version = int(found[2])
    return Token(found[1], version) if version <= HIGHEST_VERSION else None
