"""Which file of a version a path of a URL names.

Only what is in the manifest can be found: links are followed in the manifest, not on the disk, and the manifest's own
rules keep them inside the tree.
"""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import unquote_to_bytes

import attrs
import blake3

from farmsyncd.core.snapshot import Entry, Kind, Manifest
from farmsyncd.core.words import is_name, is_version

_MAX_HOPS = 40
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_INDEX = b"index.html"


@attrs.frozen
class Asked:
    """What a URL asks for: a dataset, one of its versions or the active one, and a path inside (bytes, no slash first).

    ``within`` is False for ``/DATASET`` without a slash after it.
    """

    dataset: str
    version: str | None
    path: bytes
    within: bool = True


@attrs.frozen
class Found:
    """A regular file: where it really is in the tree, after links and ``index.html``."""

    path: bytes
    entry: Entry


@attrs.frozen
class Moved:
    """A directory that was asked for without the slash at its end, and has an ``index.html``."""


def read_url(path: bytes) -> Asked | None:
    """What the (still quoted) path of a URL asks for; None when it cannot name anything."""
    if not path.startswith(b"/") or _BAD_ESCAPE.search(path):
        return None
    first, slash, rest = path[1:].partition(b"/")
    name, at, version = unquote_to_bytes(first).decode("utf-8", "replace").partition("@")
    inside = unquote_to_bytes(rest)
    if not is_name(name) or (at and not is_version(version)) or b"\0" in inside:
        return None
    # An escaped slash would name another file than the one that proxies and logs see.
    if b"%2f" in rest.lower() or b".." in inside.split(b"/"):
        return None
    return Asked(name, version if at else None, inside, bool(slash))


class Tree:
    """A version's manifest, made ready for lookups."""

    def __init__(self, manifest: Manifest) -> None:
        self.version = manifest.version
        self._entries = {entry.path: entry for entry in manifest.entries}

    def find(self, asked: Asked) -> Found | Moved | None:
        """The file that was asked for."""
        path = asked.path
        bare = path.rstrip(b"/")
        if b"//" in path or path.startswith(b"/"):
            return None
        real = self._resolve(bare)
        if real is None:
            return None
        entry = self._entries.get(real)
        if entry is not None and entry.kind is Kind.FILE:
            return Found(real, entry) if bare == path else None
        index = self._resolve(_join(real, _INDEX))
        found = self._entries.get(index) if index else None
        if index is None or found is None or found.kind is not Kind.FILE:
            return None
        ends_well = path.endswith(b"/") or (not path and asked.within)
        return Found(index, found) if ends_well else Moved()

    def _resolve(self, path: bytes) -> bytes | None:
        """The path of the file or directory that ``path`` leads to by links; None when it leads nowhere."""
        waiting = [part for part in reversed(path.split(b"/")) if part]
        real = b""
        hops = 0
        while waiting:
            part = waiting.pop()
            if part == b".":
                continue
            if part == b"..":
                real = real.rpartition(b"/")[0]
                continue
            entry = self._entries.get(_join(real, part))
            if entry is None:
                return None
            if entry.kind is Kind.LINK:
                hops += 1
                if hops > _MAX_HOPS:
                    return None
                waiting.extend(reversed(entry.target.split(b"/")))
            elif entry.kind is Kind.FILE and waiting:
                return None
            else:
                real = entry.path
            waiting = [one for one in waiting if one]
        return real


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def etag(entry: Entry) -> bytes:
    """A strong validator: equal for equal contents only, and the same on every node."""
    if len(entry.chunks) == 1:
        return b'"' + entry.chunks[0].hex()[:40].encode() + b'"'
    return b'"' + blake3.blake3(b"".join(entry.chunks)).hexdigest()[:40].encode() + b'"'


_TYPES = mimetypes.MimeTypes()  # the table that comes with Python: the same on every node, whatever /etc says
_TYPES.add_type("application/manifest+json", ".webmanifest")
_TYPES.add_type("image/avif", ".avif")
_TYPES.add_type("image/webp", ".webp")
_TYPES.add_type("font/woff2", ".woff2")
_ENCODED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/brotli",
}


def content_type(path: bytes) -> bytes:
    """The media type that a file's name tells."""
    kind, encoding = _TYPES.guess_type(path.rpartition(b"/")[2].decode("utf-8", "replace"), strict=False)
    if encoding is not None:
        return _ENCODED.get(encoding, "application/octet-stream").encode()
    if kind is None:
        return b"application/octet-stream"
    if kind.startswith("text/") or kind in {"application/json", "application/javascript", "image/svg+xml"}:
        return f"{kind}; charset=utf-8".encode()
    return kind.encode()
