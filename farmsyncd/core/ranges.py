"""Sets of numbers as short ASCII text: ``0-99,105``. The empty set is the empty text.

There is one spelling for each set: ascending, neighbours joined, a lone number without a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_RANGE = re.compile(rb"(0|[1-9][0-9]{0,9})(?:-([1-9][0-9]{0,9}))?")


def spell(numbers: Iterable[int]) -> bytes:
    """``numbers`` (none negative, in any order) as ranges."""
    spelled: list[str] = []
    first = last = -2
    for number in sorted(set(numbers)):
        if number == last + 1:
            last = number
            continue
        if last >= 0:
            spelled.append(_one(first, last))
        first = last = number
    if last >= 0:
        spelled.append(_one(first, last))
    return ",".join(spelled).encode()


def read(text: bytes, limit: int) -> list[int]:
    """The numbers that ``text`` spells, ascending; all must be below ``limit``.

    Raises ValueError saying what was expected, for anything that :func:`spell` would not have written.
    """
    numbers: list[int] = []
    next_free = 0
    for part in text.split(b",") if text else ():
        found = _RANGE.fullmatch(part)
        if found is None:
            raise ValueError(f"expected ranges such as 0-99,105, and {part[:40]!r} is none")
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if first < next_free or (found[2] is not None and last <= first):
            raise ValueError(f"expected ascending ranges with gaps between, and {part!r} is not after the one before")
        if last >= limit:
            raise ValueError(f"expected numbers below {limit}, and {part!r} goes further")
        numbers.extend(range(first, last + 1))
        next_free = last + 2
    return numbers


def _one(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
