"""How much is read at once: much of bulk, little of many small messages."""

from __future__ import annotations

from farmsyncd.edges.link.portion import MESSAGES, Portion

MOST = 1024 * 1024


def read(portion: Portion, message: int, turns: int) -> list[int]:
    """Read from a full socket with messages of one size; how many came in each turn."""
    counts = []
    for _ in range(turns):
        counts.append(portion.size // message)
        portion.took(portion.size, counts[-1])
    return counts


def test_bulk_is_soon_read_in_large_pieces() -> None:
    portion = Portion(MOST)
    read(portion, 4 * MOST, 5)
    assert portion.size == MOST


def test_many_small_messages_never_keep_a_turn_busy_for_long() -> None:
    portion = Portion(MOST)
    assert max(read(portion, 110, 1000)) < 1000
    assert read(portion, 110, 1) <= [MESSAGES]
    read(portion, 4 * MOST, 10)
    assert portion.size == MOST


def test_a_rate_limit_is_never_exceeded_by_one_read() -> None:
    portion = Portion(4096)
    assert portion.size == 4096
    for message in (10, 100_000):
        read(portion, message, 10)
        assert portion.size <= 4096
