"""Versions as people give them: whole, or just so many of the first hexadecimal digits that only one is meant."""

from __future__ import annotations

import re

from farmsyncd.cli.operator import Operator
from farmsyncd.core import words
from farmsyncd.core.messages.operating import History
from farmsyncd.errors import BadInput

_FEWEST = 4


async def full_version(operator: Operator, dataset: str, given: str) -> str:
    """The version of ``dataset`` that ``given`` names. BadInput when none or several begin like that."""
    given = given.lower()
    if words.is_version(given):
        return given
    if re.fullmatch(rf"[0-9a-f]{{{_FEWEST},39}}", given) is None:
        raise BadInput(
            f"expected a version, or at least {_FEWEST} of its first hexadecimal digits, and found {given!r}"
        )
    history = await operator.answer(History(dataset))
    found: list[str] = sorted({cycle["version"] for cycle in history["cycles"] if cycle["version"].startswith(given)})
    if len(found) != 1:
        which = "several: " + ", ".join(version[:16] for version in found) if found else "none"
        raise BadInput(f"expected one version of {dataset} that begins with {given}, and found {which}")
    return found[0]
