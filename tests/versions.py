"""Versions for tests: trees on disk with their manifests, their chunks as messages, and random steps between two."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
from hypothesis import strategies as st

from farmsyncd.core.cutting import Cutting
from farmsyncd.core.delta import Bundle, ManifestPart, ManifestReader, read_part
from farmsyncd.core.messages import Side, read
from farmsyncd.core.messages.content import Chunk, Delta
from farmsyncd.core.snapshot import Manifest
from farmsyncd.core.wire import FrameParser
from farmsyncd.edges.content import packing, tree
from farmsyncd.edges.content.assembly import Assembler, Base

SMALL_CUTS = Cutting(minimum=256, average=1024, maximum=4096, whole=1024)
"""So that files of a few kilobytes have several chunks."""
TIME = 1_700_000_000_123_456_789


@attrs.frozen
class File:
    """A file to be: its bytes, its executable bit, its time in nanoseconds."""

    data: bytes = b""
    executable: bool = False
    mtime_ns: int = TIME


@attrs.frozen
class LinkTo:
    """A symbolic link to be."""

    target: bytes


Node = File | LinkTo | None
"""None is a directory."""
Tree = Mapping[bytes, Node]


@attrs.frozen
class Version:
    """A tree on disk, as a publisher has it, and its manifest."""

    path: Path
    manifest: Manifest

    def chunks(self, numbers: Iterable[int] | None = None) -> list[Chunk]:
        """The chunks with these numbers, or all, as they would come."""
        scanned = tree.Scanned(os.fsencode(self.path), self.manifest)
        wanted = range(len(self.manifest.distinct_chunks())) if numbers is None else numbers
        return [
            Chunk(one.digest, one.codec, one.length, bytes(one.packed))
            for one in packing.packed_chunks(scanned, wanted, 1)
        ]


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A directory for one example, removed with all that is in it, read-only trees too."""
    here = Path(tempfile.mkdtemp(prefix="farmsync-test-"))
    try:
        yield here
    finally:
        for directory, _names, _files in os.walk(os.fsencode(here)):
            os.chmod(directory, 0o700)  # noqa: PTH101 - names are bytes
        shutil.rmtree(os.fsencode(here))


def grow(path: Path, nodes: Tree) -> Version:
    """Make a tree on disk, writable as publishers' trees are, and read it."""
    path.mkdir()
    for name in sorted(nodes):
        node, at = nodes[name], path / os.fsdecode(name)
        if isinstance(node, LinkTo):
            at.parent.mkdir(parents=True, exist_ok=True)
            at.symlink_to(os.fsdecode(node.target))
        elif node is None:
            at.mkdir(parents=True, exist_ok=True)
        else:
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(node.data)
            at.chmod(0o755 if node.executable else 0o644)
            os.utime(at, ns=(node.mtime_ns, node.mtime_ns))
    return Version(path, tree.scan(path, cutting=SMALL_CUTS, threads=1).manifest)


def look(path: Path) -> dict[bytes, object]:
    """All that is below ``path``: files with their bytes, executable bit and time, directories, links."""
    found: dict[bytes, object] = {}
    for directory, names, files in os.walk(os.fsencode(path)):
        for name in (*names, *files):
            at = os.path.join(directory, name)  # noqa: PTH118 - names are bytes
            status = os.lstat(at)
            inside = os.path.relpath(at, os.fsencode(path))
            if stat.S_ISLNK(status.st_mode):
                found[inside] = LinkTo(os.readlink(at))  # noqa: PTH115 - names are bytes
            elif stat.S_ISDIR(status.st_mode):
                found[inside] = None
            else:
                data = Path(os.fsdecode(at)).read_bytes()
                found[inside] = File(data, bool(status.st_mode & 0o100), status.st_mtime_ns)
    return found


def stage(version: Version, target: Path, *bases: Base, workers: int = 1) -> Path:
    """Assemble ``version`` from ``bases`` and chunks."""
    assembler = Assembler(target, version.manifest, bases, workers=workers)
    try:
        assembler.prepare()
        assembler.reuse()
        assembler.take(version.chunks(assembler.lacking()))
        assembler.finish()
    finally:
        assembler.close()
    return target


def read_delta(frames: bytes, old: Manifest, new: str) -> tuple[Manifest, list[Bundle]]:
    """What a node makes of the frames of a delta."""
    reader, manifest, bundles = ManifestReader(old, new), None, []
    messages = [read(frame, Side.SERVER) for frame in FrameParser().feed(frames)]
    for index, message in enumerate(messages):
        assert isinstance(message, Delta)
        assert (message.new, message.index, message.count) == (new, index, len(messages))
        part = read_part(message.part)
        if isinstance(part, ManifestPart):
            manifest = reader.add(part)
        else:
            bundles.append(part)
    assert manifest is not None
    return manifest, bundles


_names = st.one_of(
    st.sampled_from([b"a", b"b", b"c d", b"e\nf", b"\xff\xfe", "ü".encode(), b"...", b"-", b"a.txt"]),
    st.binary(min_size=1, max_size=8).filter(lambda name: name not in (b".", b"..") and not {0, 47} & set(name)),
)
_paths = st.lists(_names, min_size=1, max_size=3).map(b"/".join)
_sizes = st.sampled_from([0, 1, 300, 1024, 1025, 9000, 30_000])


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Node]:
    """Any tree: empty and large files, links, directories, names of any bytes."""
    nodes: dict[bytes, Node] = {}
    for path in draw(st.lists(_paths, max_size=8, unique=True)):
        parents = [path[:at] for at, byte in enumerate(path) if byte == 47]
        if path in nodes or any(nodes.get(parent) is not None for parent in parents):
            continue
        nodes.update((parent, None) for parent in parents)
        kind = draw(st.integers(0, 9))
        if kind < 7:
            data = random.Random(draw(st.integers(0, 9))).randbytes(draw(_sizes))
            nodes[path] = File(data, draw(st.booleans()), draw(st.sampled_from([TIME, 0, 1, -1_500_000_000])))
        else:
            nodes[path] = LinkTo(draw(st.sampled_from([b"a", b"x/y", b"./z"]))) if kind < 9 else None
    return nodes


@st.composite
def steps(draw: st.DrawFn) -> tuple[dict[bytes, Node], dict[bytes, Node]]:
    """A tree and what became of it: files kept, changed, touched, moved, replaced and new."""
    old = draw(trees())
    new = draw(trees())
    for path in list(old):
        parents = [path[:at] for at, byte in enumerate(path) if byte == 47]
        below = any(name.startswith(path + b"/") for name in new)
        if below or any(new.get(parent) is not None for parent in parents) or draw(st.integers(0, 5)) == 0:
            continue
        new.update((parent, None) for parent in parents)
        node = old[path]
        new[path] = _changed(draw, node) if isinstance(node, File) else node
    return old, new


def _changed(draw: st.DrawFn, file: File) -> File:
    data, at = file.data, draw(st.integers(0, len(file.data)))
    how = draw(st.sampled_from(["kept", "kept", "inserted", "altered", "cut", "touched", "mode"]))
    if how == "inserted":
        return attrs.evolve(file, data=data[:at] + b"inserted" + data[at:])
    if how == "altered" and at < len(data):
        return attrs.evolve(file, data=data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    if how == "cut":
        return attrs.evolve(file, data=data[:at])
    if how == "touched":
        return attrs.evolve(file, mtime_ns=file.mtime_ns + 1)
    return attrs.evolve(file, executable=not file.executable) if how == "mode" else file
