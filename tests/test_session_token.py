"""Ids and the token that carries one: what was not issued by us is not read, and costs little."""

from __future__ import annotations

import hashlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.session.token import ENTROPY_BYTES, HIGHEST_VERSION, Token, new_id, read_token

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
VERSIONS = st.integers(1, 9) | st.integers(1, HIGHEST_VERSION)
SOME_ID = new_id(bytes(range(32)))


@given(ENTROPY, VERSIONS)
def test_a_token_is_read_as_it_was_spelled(entropy: bytes, version: int) -> None:
    token = Token(new_id(entropy), version)
    assert read_token(token.spell()) == token
    assert len(token.id) == 43


@given(st.sets(ENTROPY, min_size=2, max_size=20))
def test_other_random_bytes_are_another_id(several: set[bytes]) -> None:
    assert len({new_id(entropy) for entropy in several}) == len(several)


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9_-]{40,46}\.[0-9]{1,18}", fullmatch=True))
def test_what_is_read_as_a_token_is_spelled_exactly_so(text: str) -> None:
    token = read_token(text)
    if token is not None:
        assert token.spell() == text
        assert 1 <= token.version <= HIGHEST_VERSION
        assert len(token.id) == 43


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        SOME_ID,
        f"{SOME_ID}.",
        f"{SOME_ID}.0",
        f"{SOME_ID}.01",
        f"{SOME_ID}.-1",
        f"{SOME_ID}.+1",
        f"{SOME_ID}.1_0",
        f"{SOME_ID}.\u0661",
        f"{SOME_ID}.1 ",
        f"{SOME_ID}.1\n",
        f" {SOME_ID}.1",
        f"{SOME_ID}.{HIGHEST_VERSION + 1}",
        f"{SOME_ID}.{10**17}",
        f"{SOME_ID[:-1]}.1",
        f"{SOME_ID}A.1",
        f"{SOME_ID[:-1]}9.1",  # 258 bits: nobody was given this id
        f"{SOME_ID[:-1]}=.1",
        f"{SOME_ID[:-2]}+8.1",
        "A" * 10_000_000,
    ],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert read_token(text) is None


def test_the_digest_is_the_sha256_of_the_id_and_of_nothing_else() -> None:
    token = Token(SOME_ID, 7)
    assert token.digest == hashlib.sha256(SOME_ID.encode()).digest()
    assert attrs.evolve(token, version=8).digest == token.digest


def test_a_tokens_representation_does_not_show_the_id() -> None:
    token = Token(SOME_ID, 7)
    assert SOME_ID not in repr(token)
    assert token.digest.hex()[:12] in repr(token)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_an_id_takes_256_random_bits(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected 32 random bytes for an id, found {size}"):
        new_id(bytes(size))
