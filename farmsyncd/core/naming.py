"""Which datasets there may be: each is a directory in every node's state, and all of them together are one line."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from farmsyncd.core.refusal import Refused

MOST: Final = 1000
"""Datasets of a farm, and pins of a node in one of them: as many as fit a line of the protocol, however long."""
_TAKEN: Final = frozenset({"lock", "addresses.json", "addresses.json.new"})
"""What a node's state directory holds besides datasets."""


def expect_free(names: Collection[str]) -> None:
    """Raise ValueError unless all of ``names`` may be datasets."""
    for name in names:
        if name in _TAKEN:
            raise ValueError(f"expected a name for a dataset, and nodes have a file of their own named {name}")


def expect_usable(dataset: str, known: Collection[str]) -> None:
    """Raise Refused unless ``dataset`` is one of those ``known`` or may become another."""
    if dataset in known:
        return
    if dataset in _TAKEN:
        raise Refused("refused", f"nodes have a file of their own named {dataset}: choose another name for the dataset")
    if len(known) >= MOST:
        raise Refused("refused", f"expected at most {MOST} datasets, and there are as many: publish for one of those")
