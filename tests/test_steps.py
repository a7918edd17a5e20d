"""Which old chunks a delta looks at: those of the same name, and in a large file those from the same place."""

from __future__ import annotations

from hypothesis import given

from farmsyncd.core.cutting import Cutting
from farmsyncd.core.delta import MAX_NEW, MAX_OLD
from farmsyncd.core.entries import Entry, Kind
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.steps import Step, steps
from tests.trees import file_entry, manifests

MIB = 1024 * 1024


def large(path: bytes, names: bytes, length: int = 2 * MIB) -> Entry:
    """A file of chunks of ``length`` bytes, each named by a letter."""
    chunks = tuple(bytes([name]) * 32 for name in names)
    return Entry(path, Kind.FILE, size=length * len(chunks), chunks=chunks, lengths=(length,) * len(chunks))


def manifest(*entries: Entry) -> Manifest:
    return Manifest.of(entries, Cutting())


def named(found: tuple[int, ...], version: Manifest) -> bytes:
    return bytes(version.distinct_chunks()[number][0][0] for number in found)


def steps_between(old: Manifest, new: Manifest) -> tuple[list[tuple[bytes, bytes]], bytes]:
    found, alone = steps(old, new)
    assert alone.old == ()
    return [(named(step.new, new), named(step.old, old)) for step in found], named(alone.new, new)


def test_nothing_is_done_for_what_did_not_change() -> None:
    version = manifest(large(b"a", b"abc"), file_entry(b"b", b"b"))
    assert steps(version, version) == ([], Step((), ()))


def test_a_changed_stretch_resembles_what_was_between_the_same_neighbours() -> None:
    old = manifest(large(b"a", b"abcdefg"))
    assert steps_between(old, manifest(large(b"a", b"abXefg"))) == ([(b"X", b"cd")], b"")
    assert steps_between(old, manifest(large(b"a", b"XYcdefg"))) == ([(b"XY", b"ab")], b"")
    assert steps_between(old, manifest(large(b"a", b"abcdefX"))) == ([(b"X", b"g")], b"")


def test_an_insertion_resembles_its_surroundings() -> None:
    old = manifest(large(b"a", b"abcd"))
    assert steps_between(old, manifest(large(b"a", b"abXcd"))) == ([(b"X", b"bc")], b"")
    assert steps_between(old, manifest(large(b"a", b"abcdX"))) == ([(b"X", b"d")], b"")
    assert steps_between(old, manifest(large(b"a", b"Xabcd"))) == ([(b"X", b"a")], b"")


def test_small_steps_are_taken_together_and_each_chunk_once() -> None:
    old = manifest(large(b"a", b"a", 100), large(b"b", b"b", 100), large(b"c", b"a", 100))
    new = manifest(large(b"a", b"X", 100), large(b"b", b"Y", 100), large(b"c", b"X", 100))
    assert steps_between(old, new) == ([(b"XY", b"ab")], b"")


def test_what_has_no_predecessor_stands_alone() -> None:
    old = manifest(large(b"a", b"a"), file_entry(b"empty"))
    new = manifest(large(b"a", b"a"), large(b"b", b"XaY"), large(b"empty", b"Z"))
    assert steps_between(old, new) == ([], b"XYZ")


def test_a_file_in_another_order_is_still_led_to() -> None:
    old = manifest(large(b"a", b"abcd"))
    found, alone = steps_between(old, manifest(large(b"a", b"dXcYbZa")))
    assert sorted(b"".join(new for new, _old in found)) == sorted(b"XYZ")
    assert alone == b""


def test_a_file_that_is_all_new_is_cut_into_pieces_that_fit() -> None:
    old = manifest(large(b"a", bytes(range(60)), 4 * MIB))
    new = manifest(large(b"a", bytes(range(100, 170)), 3 * MIB))
    found, _alone = steps(old, new)
    assert [number for step in found for number in step.new] == list(range(70))
    for step in found:
        assert len(step.new) * 3 * MIB <= MAX_NEW
        assert len(step.old) * 4 * MIB <= MAX_OLD
        middle = step.new[0] * 3 / 4
        assert not step.old or min(abs(number - middle) for number in step.old) <= 2


@given(manifests(), manifests())
def test_every_new_chunk_is_in_one_step(old: Manifest, new: Manifest) -> None:
    found, alone = steps(old, new)
    known = {digest for digest, _length in old.distinct_chunks()}
    expected = [number for number, (digest, _) in enumerate(new.distinct_chunks()) if digest not in known]
    assert sorted([*alone.new, *(number for step in found for number in step.new)]) == expected
