from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core.pointer import RECORD_BYTES, Pointer, Record, decode, encode, newest

A, B = "a" * 40, "b" * 40
BOOT = b"0123456789abcdef"
versions = st.binary(min_size=20, max_size=20).map(bytes.hex)
numbers = st.integers(-(2**63), 2**63 - 1)
active = st.one_of(st.none(), st.tuples(versions, numbers))
coming = st.one_of(st.none(), st.tuples(versions, numbers, numbers))


@st.composite
def _pointers(draw: st.DrawFn) -> Pointer:
    version, cycle = draw(active) or (None, None)
    following, next_cycle, flips_at_ns = draw(coming) or (None, None, None)
    return Pointer(version, cycle, following, next_cycle, flips_at_ns, draw(st.binary(min_size=16, max_size=16)))


records = st.builds(Record, st.integers(0, 2**64 - 1), _pointers())


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    data = encode(record)
    assert len(data) == RECORD_BYTES
    assert decode(data) == record


@given(records, st.integers(0, RECORD_BYTES * 8 - 1))
def test_a_record_with_any_bit_wrong_is_none(record: Record, bit: int) -> None:
    data = bytearray(encode(record))
    data[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(data)) is None


@given(st.binary(max_size=2 * RECORD_BYTES))
def test_other_bytes_are_no_record(data: bytes) -> None:
    assert decode(data) is None


@given(records, records, st.integers(0, RECORD_BYTES))
def test_a_writer_that_dies_at_any_byte_leaves_the_newest_but_one(old: Record, new: Record, written: int) -> None:
    before, after = encode(old), encode(new)
    torn = after[:written] + before[written:]
    assert decode(torn) in {None, old, new}
    standing = Record(new.sequence + 1 if new.sequence < 2**64 - 1 else 2**64 - 1, old.pointer)
    found = newest([torn, encode(standing)])
    assert found is not None
    assert found[1] in {standing, new, old}


def test_the_newest_whole_record_is_the_one_with_the_highest_number() -> None:
    slots = [encode(Record(number, Pointer(A, number, None, None, None, BOOT))) for number in (7, 9, 8)]
    assert newest(slots) == (1, decode(slots[1]))
    assert newest([slots[0], b"x" * RECORD_BYTES]) == (0, decode(slots[0]))
    assert newest([bytes(RECORD_BYTES), b""]) is None


def test_the_next_version_is_current_from_its_nanosecond_on() -> None:
    pointer = Pointer(A, 1, B, 2, 1000, BOOT)
    assert (pointer.current(999), pointer.current_cycle(999)) == (A, 1)
    assert (pointer.current(1000), pointer.current_cycle(1000)) == (B, 2)
    assert pointer.after_flip() == Pointer(B, 2, None, None, None, BOOT)
    assert pointer.without_next() == Pointer(A, 1, None, None, None, BOOT)
    assert pointer.without_next().current(10**18) == A


def test_before_the_first_activation_nothing_is_current() -> None:
    first = Pointer(None, None, A, 1, 1000, BOOT)
    assert [first.current(now_ns) for now_ns in (0, 999, 1000)] == [None, None, A]
    assert Pointer(None, None, None, None, None, BOOT).current(0) is None


@pytest.mark.parametrize(
    "fields",
    [
        (A, None, None, None, None, BOOT),
        (None, 1, None, None, None, BOOT),
        (A, 1, B, None, None, BOOT),
        (A, 1, B, 2, None, BOOT),
        (A, 1, None, None, 5, BOOT),
        ("../etc", 1, None, None, None, BOOT),
        (A, 1, B.upper(), 2, 5, BOOT),
        (A, 1, None, None, None, b"short"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields: tuple[str, int, str, int, int, bytes]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Pointer(*fields)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        encode(Record(1, Pointer(A, 2**63, None, None, None, BOOT)))
