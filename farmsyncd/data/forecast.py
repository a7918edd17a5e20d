"""What a publication would do, before it is done: what changes, how much travels, and which nodes will make it."""

from __future__ import annotations

from collections.abc import Iterable

from farmsyncd.core.cycle import SECOND_NS, Course, Step
from farmsyncd.core.snapshot import Manifest, difference
from farmsyncd.edges.catalog import NodeRecord

_NAMED = 100
_CAREFUL_RATE = 20 * 1000 * 1000  # bytes per second that nearly any farm's network gives a node


def changes(old: Manifest | None, new: Manifest) -> dict[str, object]:
    """The files that come, change and go between two versions; the first hundred of each by name."""
    diff = difference(old if old is not None else Manifest(()), new)
    return {
        "added": len(diff.added),
        "changed": len(diff.changed),
        "removed": len(diff.removed),
        "added_names": [_spelled(entry.path) for entry in diff.added[:_NAMED]],
        "changed_names": [_spelled(entry.path) for _old, entry in diff.changed[:_NAMED]],
        "removed_names": [_spelled(entry.path) for entry in diff.removed[:_NAMED]],
    }


def fetched_bytes(old: Manifest | None, new: Manifest) -> int:
    """The bytes, unpacked, of the chunks that a node lacks which has ``old``: what it has to fetch at most."""
    here = {digest for digest, _length in old.distinct_chunks()} if old is not None else set()
    return sum(length for digest, length in new.distinct_chunks() if digest not in here)


def likely_ready(
    course: Course, step: Step, now_ns: int, step_bytes: int, all_bytes: int, nodes: Iterable[tuple[NodeRecord, bool]]
) -> list[dict[str, object]]:
    """For each node of the dataset, whether it will probably have the version in time, and why."""
    assert step.scheduled is not None
    version, left_ns = step.scheduled.version, step.scheduled.activates_at_ns - now_ns
    answers: list[dict[str, object]] = []
    for record, connected in nodes:
        if record.dataset != course.dataset:
            continue
        if version in {record.version, record.staged_version}:
            likely, why = True, "has it already"
        elif not connected:
            likely, why = False, "is not connected"
        else:
            has_active = course.active is not None and record.version == course.active.version
            count = step_bytes if has_active else all_bytes
            needed_ns = count * SECOND_NS // _CAREFUL_RATE
            likely = needed_ns <= left_ns
            why = f"has at most {count} bytes to fetch in {left_ns / SECOND_NS:.1f} s"
        answers.append({"name": record.name, "likely": likely, "why": why})
    return answers


def _spelled(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
