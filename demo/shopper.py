"""A shopper who never stops looking: through the balancer, page after page, noting which version each came from."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

_PAUSE = 0.02  # seconds between two pages


class Shopper:
    """Fetches one page of the shop again and again in a thread of its own, until the block is left."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._shop, daemon=True)
        self.pages: Counter[str] = Counter()
        self.failures = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _shop(self) -> None:
        while not self._leave.wait(_PAUSE):
            try:
                with urlopen(self._url, timeout=10) as answer:
                    answer.read()
                    self.pages[answer.headers["X-Farmsync-Version"]] += 1
            except (URLError, OSError):
                self.failures += 1
