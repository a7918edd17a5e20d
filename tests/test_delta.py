"""The parts of a delta: what fits leads to the new version, and nothing else is believed."""

from __future__ import annotations

import random

import attrs
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import delta
from farmsyncd.core.delta import Bundle, DeltaError, ManifestPart, ManifestReader
from farmsyncd.core.snapshot import Manifest, ManifestError
from tests.trees import file_entry, manifests

OLD = Manifest.of([file_entry(b"a", b"before"), file_entry(b"b", b"same")])
NEW = Manifest.of([file_entry(b"a", b"after"), file_entry(b"b", b"same"), file_entry(b"c", b"new")])


@given(manifests(), manifests())
def test_a_manifest_travels_as_its_difference_to_another(old: Manifest, new: Manifest) -> None:
    reader = ManifestReader(old, new.version)
    *most, last = delta.manifest_parts(old, new)
    assert [reader.add(delta_part(part)) for part in most] == [None] * len(most)
    assert reader.add(delta_part(last)) == new


def delta_part(part: ManifestPart) -> ManifestPart:
    """``part`` after a journey."""
    read = delta.read_part(delta.encode_part(part))
    assert isinstance(read, ManifestPart)
    return read


def test_a_large_difference_travels_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PIECE", 10)
    parts = delta.manifest_parts(OLD, NEW)
    assert len(parts) > 3
    reader = ManifestReader(OLD, NEW.version)
    assert [reader.add(part) for part in parts][-1] == NEW
    reader = ManifestReader(OLD, NEW.version)
    reader.add(parts[0])
    with pytest.raises(DeltaError, match="next piece"):
        reader.add(parts[2])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "another"}, "expected a delta in the format"),
        ({"old": NEW.version}, "expected the step from"),
        ({"new": OLD.version}, "expected the step from"),
        ({"length": 0}, "0 are announced"),
        ({"length": 1 << 40}, "are announced"),
        ({"after": -1}, "are announced"),
        ({"length": len(NEW.encoded) + 1}, "difference that makes"),
        ({"data": b""}, "difference"),
        ({"data": b"garbage"}, "difference"),
    ],
)
def test_a_manifest_part_that_does_not_fit_is_refused(changes: dict[str, object], expected: str) -> None:
    (part,) = delta.manifest_parts(OLD, NEW)
    with pytest.raises(DeltaError, match=expected):
        ManifestReader(OLD, NEW.version).add(msgspec.structs.replace(part, **changes))


def test_a_difference_that_makes_another_manifest_is_refused() -> None:
    (part,) = delta.manifest_parts(OLD, NEW)
    other = Manifest.of([file_entry(b"a", b"never"), file_entry(b"b", b"same"), file_entry(b"c", b"new")])
    forged = msgspec.structs.replace(part, data=delta.pack(other.encoded, OLD.encoded))
    with pytest.raises(ManifestError, match="expected the manifest of version"):
        ManifestReader(OLD, NEW.version).add(forged)


@given(st.binary(max_size=200))
def test_garbage_is_no_part(garbage: bytes) -> None:
    try:
        part = delta.read_part(garbage)
    except DeltaError:
        return
    assert isinstance(part, Bundle | ManifestPart)


@given(st.data())
def test_a_damaged_part_is_refused_or_has_its_chunks_refused(data: st.DataObject) -> None:
    encoded = bytearray(delta.encode_part(Bundle((1, 2), (0,), delta.pack(b"after" + b"new", b"before"))))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        part = delta.read_part(bytes(encoded))
        assert isinstance(part, Bundle)
        length = delta.check_bundle(part, OLD.distinct_chunks(), NEW.distinct_chunks())
        assert len(delta.unpack(part.data, b"before", length)) == length
    except (DeltaError, AssertionError):
        return


def test_a_part_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(DeltaError, match="at most"):
        delta.read_part(bytes(6 * 1024 * 1024))


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (Bundle((3,), (), b""), "expected numbers below 3 of new chunks, and found 3"),
        (Bundle((-1,), (), b""), "found -1"),
        (Bundle((0,), (2,), b""), "expected numbers below 2 of old chunks, and found 2"),
        (Bundle((), (0,), b""), "found none"),
    ],
)
def test_numbers_out_of_range_are_refused(bundle: Bundle, expected: str) -> None:
    with pytest.raises(DeltaError, match=expected):
        delta.check_bundle(bundle, OLD.distinct_chunks(), NEW.distinct_chunks())


def test_a_bundle_holds_no_more_than_it_may() -> None:
    chunks = [(bytes([number]) * 32, 4 * 1024 * 1024) for number in range(6)]
    assert delta.check_bundle(Bundle((0,), (0, 1, 2, 3), b""), chunks, chunks) == 4 * 1024 * 1024
    with pytest.raises(DeltaError, match="bytes of new chunks"):
        delta.check_bundle(Bundle((0, 1), (), b""), chunks, chunks)
    with pytest.raises(DeltaError, match="bytes of old chunks"):
        delta.check_bundle(Bundle((0,), (0, 1, 2, 3, 4), b""), chunks, chunks)


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.integers(0, 3000))
def test_what_is_packed_is_unpacked(data: bytes, prefix: bytes, at: int) -> None:
    mixed = prefix[:at] + data + prefix[at:]
    assert delta.unpack(delta.pack(mixed, prefix), prefix, len(mixed)) == mixed


def test_a_claim_is_refused_before_anything_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(100_000_000))
    with pytest.raises(DeltaError, match="one of 100000000"):
        delta.unpack(bomb, b"", 1000)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(DeltaError, match="one of -1"):
        delta.unpack(unsized, b"", 1000)
    with pytest.raises(DeltaError):
        delta.unpack(delta.pack(b"data", b"") + b"more", b"", 4)


def test_a_small_change_in_much_costs_little() -> None:
    rng = random.Random(3)
    old = rng.randbytes(10_000_000)
    changed = bytearray(old)
    for at in range(0, len(changed), 30_000):
        changed[at : at + 4] = rng.randbytes(4)
    new = bytes(changed[6_000_000:7_500_000]) + rng.randbytes(1000) + bytes(changed[7_500_000:])
    assert len(delta.pack(new, old)) < 8_000


def test_an_empty_manifest_is_led_to_as_well() -> None:
    empty = Manifest(())
    for old, new in ((OLD, empty), (empty, NEW), (empty, attrs.evolve(empty))):
        reader = ManifestReader(old, new.version)
        assert [reader.add(part) for part in delta.manifest_parts(old, new)] == [new]
