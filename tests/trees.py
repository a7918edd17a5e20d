"""Trees for tests: random manifests, and directories on disk described by a dictionary."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.snapshot import Entry, Kind, Manifest

Content = bytes | None
"""What is at a path: a file's bytes, or None for a directory."""

_names = st.one_of(
    st.sampled_from([b"a", b"b", b"c d", b"e\nf", b"\xff\xfe", "ü".encode(), b"...", b"-", b"a.txt"]),
    st.binary(min_size=1, max_size=8).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name)),
)
_paths = st.lists(_names, min_size=1, max_size=4).map(b"/".join)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest: files with a few chunks, empty ones, directories, links."""
    directories: set[bytes] = set()
    entries: dict[bytes, Entry] = {}
    for path in draw(st.lists(_paths, max_size=12)):
        parents = [path[:at] for at, byte in enumerate(path) if byte == 47]
        if path in entries or path in directories or any(parent in entries for parent in parents):
            continue
        directories.update(parents)
        kind = draw(st.sampled_from(Kind))
        if kind is Kind.DIR:
            directories.add(path)
        elif kind is Kind.LINK:
            entries[path] = Entry(path, kind, target=draw(st.sampled_from([b"a", b"x/y", b"./z"])))
        else:
            pieces = draw(st.lists(st.binary(min_size=1, max_size=9), max_size=3))
            entries[path] = file_entry(path, *pieces, mode_exec=draw(st.booleans()), mtime_ns=draw(_times))
    return Manifest.of([*entries.values(), *(Entry(path, Kind.DIR) for path in directories - entries.keys())])


_times = st.integers(-(10**18), 4 * 10**18)


def file_entry(path: bytes, *pieces: bytes, mode_exec: bool = False, mtime_ns: int = 0) -> Entry:
    """A file's entry, of these chunks."""
    lengths = tuple(len(piece) for piece in pieces)
    return Entry(path, Kind.FILE, mode_exec, mtime_ns, sum(lengths), tuple(map(digest_of, pieces)), lengths)


def plant(
    root: Path, tree: Mapping[str, Content] | Mapping[bytes, Content] | Mapping[str, bytes] | Mapping[bytes, bytes]
) -> Path:
    """Make ``tree`` on disk below ``root``, with the directories that its paths need."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / os.fsdecode(name)
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root
