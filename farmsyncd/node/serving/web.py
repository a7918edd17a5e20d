"""``/DATASET/PATH`` and ``/DATASET@VERSION/PATH``: files of the active version, or of any version still on disk.

Which version is the active one is settled once, when a request comes in, by comparing farm time with the next
activation: a request is answered out of one version whatever happens meanwhile. The file stays open while it is sent,
so that not even the version's removal cuts it short.
"""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path
from typing import Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from farmsyncd.node.serving.conditions import judge
from farmsyncd.node.serving.lookup import Asked, Found, Moved, Tree, content_type, etag, read_url

_PIECE = 256 * 1024


class Shelf(Protocol):
    """Where the web side finds versions: one dataset on this node."""

    def current(self) -> str | None:
        """The version that is active at this very moment; None when there is nothing to serve."""

    def tree(self, version: str) -> Tree | None:
        """The version's files; None when it is not complete on this disk."""

    def path(self, version: str) -> Path:
        """The version's directory."""


class Shelves(Protocol):
    """All datasets of this node."""

    def shelf(self, dataset: str) -> Shelf | None:
        """The dataset's versions; None when this node has none."""

    def follows(self, dataset: str) -> bool:
        """Whether the dataset is one of this node's, be it that it cannot be followed at the moment."""


class ServingResource(Resource):
    """Everything on the HTTP side that is not one of the daemon's own pages."""

    isLeaf = True  # noqa: N815 - twisted.web's name
    log = Logger()

    def __init__(self, shelves: Shelves) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shelves = shelves

    def render_GET(self, request: Request) -> int | bytes:  # noqa: N802 - twisted.web's name
        """Answer a GET."""
        asked = read_url(request.uri.split(b"?", 1)[0])
        if asked is None:
            return _plain(request, 404, b"Expected /DATASET/PATH or /DATASET@VERSION/PATH, a version of 40 digits.\n")
        shelf = self._shelves.shelf(asked.dataset)
        if shelf is None and not self._shelves.follows(asked.dataset):
            return _plain(request, 404, b"There is no such dataset on this node.\n")
        version = None if shelf is None else asked.version or shelf.current()
        if shelf is None or version is None:
            request.setHeader(b"retry-after", b"1")
            return _plain(request, 503, b"This node has no version of the dataset yet.\n")
        return self._answer(request, asked, shelf, version)

    render_HEAD = render_GET  # noqa: N815 - twisted.web leaves the body out by itself

    def _answer(self, request: Request, asked: Asked, shelf: Shelf, version: str) -> int | bytes:
        tree = shelf.tree(version)
        if tree is None:
            return _plain(request, 404, b"This version is not on this node.\n")
        request.setHeader(b"x-farmsync-version", version.encode())
        found = tree.find(asked)
        if isinstance(found, Moved):
            path, mark, query = request.uri.partition(b"?")
            request.setHeader(b"location", path + b"/" + mark + query)
            return _plain(request, 301, b"It has moved.\n")
        if found is None:
            return _plain(request, 404, b"There is no such file in this version.\n")
        lasting = b"public, max-age=31536000, immutable" if asked.version else b"no-cache"
        request.setHeader(b"cache-control", lasting)
        return self._send(request, shelf.path(version), found)

    def _send(self, request: Request, directory: Path, found: Found) -> int | bytes:
        entry = found.entry
        tag, modified_s = etag(entry), entry.mtime_ns // 1_000_000_000
        verdict = judge(request.getHeader, etag=tag, modified_s=modified_s, size=entry.size)
        request.setHeader(b"etag", tag)
        request.setHeader(b"last-modified", formatdate(modified_s, usegmt=True).encode())
        request.setHeader(b"accept-ranges", b"bytes")
        if verdict.code == 416:
            request.setHeader(b"content-range", b"bytes */%d" % entry.size)
        if verdict.code not in {200, 206}:
            request.setResponseCode(verdict.code)
            return b""
        try:
            descriptor = os.open(os.fsencode(directory) + b"/" + found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            self.log.error(
                "{path} of {directory} cannot be read: {error}", path=found.path, directory=str(directory), error=error
            )
            return _plain(request, 500, b"The file cannot be read; this node's log says why.\n")
        request.setResponseCode(verdict.code)
        request.setHeader(b"content-type", content_type(found.path))
        request.setHeader(b"content-length", b"%d" % (verdict.stop - verdict.start))
        if verdict.code == 206:
            request.setHeader(b"content-range", b"bytes %d-%d/%d" % (verdict.start, verdict.stop - 1, entry.size))
        if request.method == b"HEAD":
            os.close(descriptor)
            return b""
        return _deliver(request, descriptor, verdict.start, verdict.stop)


def _deliver(request: Request, descriptor: int, start: int, stop: int) -> int | bytes:
    """Send the bytes ``start`` to ``stop``: small answers at once, larger ones as the client takes them."""
    if stop - start <= _PIECE:
        try:
            body = os.pread(descriptor, stop - start, start)
        finally:
            os.close(descriptor)
        return body
    pieces = _Pieces(request, descriptor, start, stop)
    request.registerProducer(pieces, True)
    pieces.resumeProducing()
    return NOT_DONE_YET


@implementer(IPushProducer)
class _Pieces:
    """Writes a file piece by piece, as long as the connection takes them."""

    log = Logger()

    def __init__(self, request: Request, descriptor: int, at: int, stop: int) -> None:
        self._request = request
        self._descriptor = descriptor
        self._at = at
        self._stop = stop
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer
        """Write on, until the connection has enough."""
        self._paused = False
        while not self._paused and self._descriptor >= 0:
            self._write()

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The connection has enough for now."""
        self._paused = True

    def stopProducing(self) -> None:  # noqa: N802 - IPushProducer
        """The client has gone, or has everything."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self) -> None:
        data = os.pread(self._descriptor, min(_PIECE, self._stop - self._at), self._at)
        self._at += len(data)
        if data:
            self._request.write(data)
        if self._descriptor < 0 or (data and self._at < self._stop):
            return
        self.stopProducing()
        self._request.unregisterProducer()
        if data:
            self._request.finish()
        else:  # shorter than the manifest says: the answer must not look whole
            self.log.error("a file ends {missing} bytes early; the answer is cut off", missing=self._stop - self._at)
            self._request.channel.forceAbortClient()


def _plain(request: Request, code: int, text: bytes) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return text
