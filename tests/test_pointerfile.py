from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farmsyncd.core.pointer import RECORD_BYTES, Pointer, Record, encode
from farmsyncd.edges.cache.pointerfile import FILE_BYTES, HINT_BYTES, SLOTS, PointerFile, PointerReader, boot_id
from tests.caches import BOOT, pointer
from tests.daemons import environment

A, B, C = "a" * 40, "b" * 40, "c" * 40


def test_a_reader_sees_each_writing(tmp_path: Path) -> None:
    writer = PointerFile(tmp_path / "pointer")
    reader = PointerReader(tmp_path / "pointer")
    assert writer.read() is None
    assert reader.read() is None
    for number in range(1, 6):
        told = pointer(A, B, number * 1000, cycle=number)
        writer.write(told)
        assert reader.read() == told
        assert reader.read() is reader.read(), "an unchanged pointer is not read again"
    writer.close()
    assert reader.read() == told


def test_a_new_writer_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    first = PointerFile(tmp_path / "pointer")
    reader = PointerReader(tmp_path / "pointer")
    first.write(pointer(A, cycle=1))
    first.close()
    second = PointerFile(tmp_path / "pointer")
    assert second.read() == pointer(A, cycle=1)
    second.write(pointer(B, cycle=2))
    assert reader.read() == pointer(B, cycle=2)
    assert not reader.replaced()


def _die_after(path: Path, new: Pointer, sequence: int, slot: int, written: int) -> None:
    """What a writer leaves that dies after ``written`` bytes: first those of the record, then those of the hint."""
    record = encode(Record(sequence, new))
    with path.open("r+b") as file:
        file.seek(SLOTS[slot])
        file.write(record[:written])
        file.seek(0)
        file.write(sequence.to_bytes(HINT_BYTES, "little")[: max(0, written - RECORD_BYTES)])


def test_a_writer_that_dies_at_any_byte_leaves_the_old_or_the_new_pointer(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    old, new, later = pointer(A, B, 5, cycle=1), pointer(B, C, 9, cycle=2), pointer(C, cycle=3)
    for written in range(RECORD_BYTES + HINT_BYTES + 1):
        path.unlink(missing_ok=True)
        writer = PointerFile(path)
        writer.write(pointer(A, cycle=1))  # into slot 0
        writer.write(old)  # into slot 1
        writer.close()
        reader = PointerReader(path)
        assert reader.read() == old
        _die_after(path, new, 3, 0, written)
        expected = new if written >= RECORD_BYTES else old
        assert reader.read_again() == expected
        assert PointerReader(path).read() == expected
        restarted = PointerFile(path)
        assert restarted.read() == expected
        _die_after(path, later, 4, 1 if written >= RECORD_BYTES else 0, written // 2)
        assert PointerReader(path).read() == expected, "a second death leaves it too"
        restarted.write(later)
        assert (reader.read(), PointerReader(path).read()) == (later, later)
        restarted.close()


def test_a_hint_that_is_ahead_of_the_slots_is_not_taken_for_settled(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    PointerFile(path).write(pointer(A))
    with path.open("r+b") as file:
        file.write((2).to_bytes(HINT_BYTES, "little"))
    reader = PointerReader(path)
    assert reader.read() == pointer(A)
    with path.open("r+b") as file:
        file.seek(SLOTS[1])
        file.write(encode(Record(2, pointer(B))))
    assert reader.read() == pointer(B)


def test_a_file_made_anew_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    PointerFile(path).write(pointer(A))
    reader = PointerReader(path)
    assert not reader.replaced()
    path.unlink()
    assert reader.replaced()
    PointerFile(path).write(pointer(B))
    assert reader.replaced()
    assert reader.read() == pointer(A), "until then the old one stands"


def test_a_file_that_is_no_pointer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PointerReader(tmp_path / "pointer")
    (tmp_path / "pointer").write_bytes(b"short")
    with pytest.raises(ValueError, match=f"expected a pointer file of {FILE_BYTES} bytes, found 5"):
        PointerReader(tmp_path / "pointer")
    (tmp_path / "pointer").write_bytes(b"\xff" * FILE_BYTES)
    assert PointerReader(tmp_path / "pointer").read() is None


def test_all_processes_of_a_boot_agree_on_its_name() -> None:
    code = "from farmsyncd.edges.cache.pointerfile import boot_id; print(boot_id().hex())"
    told = subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True, timeout=60)
    assert bytes.fromhex(told.stdout.decode().strip()) == boot_id() == BOOT


def test_another_process_never_reads_a_torn_pointer(tmp_path: Path) -> None:
    path = tmp_path / "pointer"
    writer = PointerFile(path)
    writer.write(pointer(A, B, 0, cycle=1))
    code = f"""
from pathlib import Path
from farmsyncd.edges.cache.pointerfile import PointerReader
reader = PointerReader(Path({str(path)!r}))
print("reading", flush=True)
last = count = 0
while True:
    found = reader.read()
    assert found is not None and found.flips_at_machine_ns == (found.active_cycle - 1) * 7, found
    assert found.active_cycle >= last, (found, last)
    count += found.active_cycle != last
    last = found.active_cycle
    if found.next_version is None:
        break
print(count)
""".replace("found.flips_at_machine_ns ==", "found.next_version is None or found.flips_at_machine_ns ==")
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"reading\n"
        for number in range(1, 3000):
            writer.write(pointer(A, B, (number - 1) * 7, cycle=number))
        writer.write(pointer(C, cycle=3000))
        told, _ = other.communicate(timeout=60)
    assert other.returncode == 0
    assert int(told) >= 1
