"""Shoppers who never stop looking: through the balancer, page after page, noting which version each came from."""

from __future__ import annotations

import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import Self
from urllib.parse import quote, urlsplit

ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 7))
_PAUSE = 0.1  # seconds between two pages of one shopper
_PATIENCE = 10.0  # seconds for a page to come


class Shopper:
    """One shopper, with an address of its own, in a thread of its own until the block is left."""

    def __init__(self, url: str, address: str = ADDRESSES[0]) -> None:
        self.address = address
        self.pages: Counter[str] = Counter()
        self.failures = 0
        self._url = urlsplit(url)
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._shop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _shop(self) -> None:
        while not self._leave.wait(_PAUSE):
            # A connection for each page, so that the balancer decides anew each time.
            connection = HTTPConnection(self._url.netloc, timeout=_PATIENCE, source_address=(self.address, 0))
            try:
                connection.request("GET", quote(self._url.path))
                answer = connection.getresponse()
                answer.read()
                self.pages[answer.headers["X-Farmsync-Version"]] += 1
                self.failures += answer.status >= 400
            except (HTTPException, OSError):
                self.failures += 1
            finally:
                connection.close()
