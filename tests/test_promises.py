"""What farmsync promises is tested: each claim by tests that bear its name, each invariant by those that docs name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
DESIGN = TESTS.parent / "docs" / "design.md"

CLAIMS = [f"s1_{number:02}" for number in range(1, 18)] + [f"s2_{number:02}" for number in range(1, 7)]
INVARIANTS = [f"I-{number}" for number in range(1, 13)]


@cache
def known_tests() -> frozenset[str]:
    """The names of all tests, from the syntax trees of their files."""
    found = set()
    for path in TESTS.glob("test_*.py"):
        for one in ast.parse(path.read_bytes(), str(path)).body:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name.startswith("test_"):
                found.add(one.name)
    return frozenset(found)


def invariants() -> dict[str, tuple[str, list[str]]]:
    """The table in docs/design.md: each promise in words, and its tests."""
    rows = re.findall(r"^\| (I-\d+) \| (.+?) \| (.+?) \|$", DESIGN.read_text("utf-8"), re.MULTILINE)
    return {name: (words, re.findall(r"`(\w+)`", named)) for name, words, named in rows}


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_has_a_test_of_its_name(claim: str) -> None:
    assert [name for name in known_tests() if name.startswith(f"test_claim_{claim}_")]


def test_no_test_bears_the_name_of_a_claim_that_there_is_not() -> None:
    named = {match[1] for name in known_tests() if (match := re.match(r"test_claim_(s\d+_\d+)", name))}
    assert named <= set(CLAIMS)


def test_the_table_lists_every_invariant() -> None:
    assert list(invariants()) == INVARIANTS


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_each_invariant_names_tests_that_are_there(invariant: str) -> None:
    words, named = invariants()[invariant]
    assert words.endswith(".")
    assert named
    assert set(named) <= known_tests()
