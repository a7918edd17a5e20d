"""Bytes to frames: any chunking, any garbage, the limits, and work that is linear in the input."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.wire import Frame, FrameParser, Limits, WireError, encode, header, pieces

VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
FRAMES = st.builds(
    Frame,
    st.from_regex(r"[A-Z][A-Z0-9-]{0,31}", fullmatch=True),
    st.lists(st.text(VISIBLE, min_size=1, max_size=20).filter(lambda word: word[0] != "+"), max_size=6).map(tuple),
    st.lists(st.binary(max_size=300), max_size=4).map(tuple),
)


def parse(parts: Iterable[bytes], limits: Limits | None = None) -> list[Frame]:
    parser = FrameParser(limits)
    frames = [frame for part in parts for frame in parser.feed(part)]
    assert parser.idle
    return frames


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 5000), max_size=12))
def test_frames_survive_any_chunking(frames: list[Frame], places: list[int]) -> None:
    stream = b"".join(encode(frame) for frame in frames)
    assert parse(cut(stream, places)) == frames


@given(st.lists(FRAMES, max_size=3))
def test_frames_survive_a_byte_at_a_time(frames: list[Frame]) -> None:
    stream = b"".join(encode(frame) for frame in frames)
    assert parse(stream[at : at + 1] for at in range(len(stream))) == frames


@given(FRAMES)
def test_pieces_are_the_frame_with_its_netstrings_uncopied(frame: Frame) -> None:
    parts = list(pieces(frame))
    assert b"".join(parts) == encode(frame)
    assert parts[0] == header(frame)
    assert all(any(part is body for part in parts) for body in frame.payload)


GARBAGE = st.binary(max_size=200) | st.lists(
    st.sampled_from([b"TIME", b"\n", b" ", b"+2", b"+", b"5:", b"hello", b",", b"0", b"-", b"\r", b"%", b"\xff", b":"])
).map(b"".join)


@given(GARBAGE, st.lists(st.integers(0, 200), max_size=6))
def test_garbage_raises_nothing_but_wire_errors_and_the_same_however_it_is_cut(data: bytes, places: list[int]) -> None:
    def outcome(parts: Iterable[bytes]) -> tuple[list[Frame], bool]:
        parser, frames = FrameParser(Limits(line=60, netstring=100, count=3, total=150)), []
        try:
            for part in parts:
                for frame in parser.feed(part):
                    frames.append(frame)  # noqa: PERF402 - what came before an error counts
        except WireError:
            return frames, True
        return frames, False

    assert outcome([data]) == outcome(cut(data, places))


class Counting(bytes):
    """Bytes that count how many of them are looked at."""

    seen = 0

    def find(self, *arguments: Any) -> int:
        found = super().find(*arguments)
        Counting.seen += (found if found >= 0 else len(self)) - (arguments[1] if len(arguments) > 1 else 0)
        return found

    def __getitem__(self, key: Any) -> Any:
        got = super().__getitem__(key)
        Counting.seen += len(got) if isinstance(got, bytes) else 1
        return Counting(got) if isinstance(got, bytes) else got


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_each_byte_is_looked_at_a_few_times_however_small_the_pieces(step: int) -> None:
    stream = encode(Frame("X", ("w" * 10_000,), (b"a" * 30_000, b"b" * 30_000))) * 2
    Counting.seen = 0
    frames = parse(Counting(stream[at : at + step]) for at in range(0, len(stream), step))
    assert len(frames) == 2
    assert Counting.seen <= 4 * len(stream)


def test_a_carriage_return_before_the_newline_is_tolerated() -> None:
    assert parse([b"TIME\r\n"]) == [Frame("TIME")]


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"\n", "expected a verb"),
        (b"time\n", "expected a verb"),
        (b"TIME \n", "single spaces"),
        (b"TIME  X\n", "single spaces"),
        (b" TIME\n", "expected a verb"),
        (b"TIME\tX\n", "expected a verb"),
        (b"\x16\x03\x01\x02\x00\n", "expected a verb"),
        (b"X +0\n", "announces"),
        (b"X +01\n", "announces"),
        (b"X +4\n", "announces"),
        (b"X +\n", "announces"),
        (b"X +1000000\n", "announces"),
        (b"X +-1\n", "announces"),
        (b"X +1\n:", "length"),
        (b"X +1\nx", "length"),
        (b"X +1\n-1:", "length"),
        (b"X +1\n 1:", "length"),
        (b"X +1\n01:a,", "leading zeros"),
        (b"X +1\n101:", "a netstring of at most 100 bytes"),
        (b"X +1\n1000:", "a netstring of at most 100 bytes"),
        (b"X +1\n1000", "a netstring of at most 100 bytes"),
        (b"X +1\n10z0", "length"),
        (b"X +2\n80:" + b"a" * 80 + b",80:", "together"),
        (b"X +1\n2:abc,", "no comma"),
        (b"X +1\n3:ab,\n", "no comma"),
        (b"V" * 70, "at most 60 bytes"),
    ],
)
def test_what_fits_nothing_is_refused_with_what_was_expected(stream: bytes, complaint: str) -> None:
    for parts in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        with pytest.raises(WireError, match=complaint):
            parse(parts, Limits(line=60, netstring=100, count=3, total=150))


def test_frames_before_the_fault_are_delivered() -> None:
    frames = FrameParser().feed(b"TIME\nSTATUS\n!\n")
    assert [next(frames), next(frames)] == [Frame("TIME"), Frame("STATUS")]
    with pytest.raises(WireError):
        next(frames)


def test_limits_may_grow_between_two_frames_of_one_read() -> None:
    parser, frames = FrameParser(Limits(line=10, netstring=5, count=1, total=5)), []
    for frame in parser.feed(b"HELLO 1\n" + encode(Frame("OFFER", (), (b"x" * 50, b"y" * 50)))):
        frames.append(frame.verb)
        parser.limits = Limits()
    assert frames == ["HELLO", "OFFER"]


def test_a_line_or_netstring_of_exactly_the_limit_is_taken() -> None:
    limits = Limits(line=10, netstring=10, count=2, total=20)
    assert parse([b"ABCDEFG +2\n10:0123456789,10:0123456789,"], limits)[0].payload == (b"0123456789",) * 2


def test_the_stream_may_end_only_between_frames() -> None:
    parser = FrameParser()
    for part, idle in [(b"TI", False), (b"ME\n", True), (b"X +1\n", False), (b"3:", False), (b"abc,", True)]:
        list(parser.feed(part))
        assert parser.idle is idle
