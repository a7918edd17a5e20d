"""The tree that staging is measured with, and its next version: made anew each time, always the same.

10,000 files of 34 KB on average, half of them text that compresses well, half of them as good as random, as images are;
and one of 200 MB that does not compress, as a model or an archive. In the next version 100 files differ in a few bytes,
and 1,000 bytes are inserted in the middle of the large one.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import attrs

LARGE = "model.bin"
# Seconds apart: rsync takes files of one size for equal when they were modified in the same second.
WRITTEN, CHANGED = 1_750_000_000, 1_750_003_600
_WORDS = 4000


@attrs.frozen
class Shape:
    """How many small files of which sizes, how large the large one, how many small ones change."""

    files: int = 10_000
    least: int = 4_000
    most: int = 64_000
    large: int = 200_000_000
    changed: int = 100
    inserted: int = 1_000
    per_folder: int = 100

    def path(self, number: int) -> str:
        """The path of the small file of this number: even ones are text."""
        kind = "pages/page" if number % 2 == 0 else "images/image"
        return f"folder-{number // self.per_folder:03d}/{kind}-{number:05d}.{'html' if number % 2 == 0 else 'jpg'}"


def first(root: Path, shape: Shape, seed: int = 1) -> int:
    """Make the first version in ``root``; its bytes."""
    chance = random.Random(seed)
    text = _text(chance)
    total = 0
    for number in range(shape.files):
        size = chance.randint(shape.least, shape.most)
        if number % 2 == 0:
            at = chance.randrange(len(text) - size)
            content = b"<!-- %d -->\n" % number + text[at : at + size]
        else:
            content = chance.randbytes(size)
        _write(root / shape.path(number), content)
        total += len(content)
    _write(root / LARGE, chance.randbytes(shape.large))
    return total + shape.large


def second(old: Path, new: Path, shape: Shape, seed: int = 2) -> int:
    """Make the next version in ``new`` from the first one in ``old``; its bytes. What is equal shares its inode."""
    chance = random.Random(seed)
    changed = set(chance.sample(range(shape.files), shape.changed))
    total = 0
    for number in range(shape.files):
        source, target = old / shape.path(number), new / shape.path(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number in changed:
            content = bytearray(source.read_bytes())
            at = chance.randrange(len(content) - 8)
            content[at : at + 5] = b"other"
            _write(target, bytes(content), CHANGED)
        else:
            os.link(source, target)
        total += target.stat().st_size
    content = bytearray((old / LARGE).read_bytes())
    content[len(content) // 2 : len(content) // 2] = chance.randbytes(shape.inserted)
    _write(new / LARGE, bytes(content), CHANGED)
    return total + len(content)


def empty(root: Path) -> None:
    """Give the room that the files below ``root`` take back to the disk, but keep the files.

    ext4 passes over inodes that were freed in the last minutes, one by one, whenever it makes a file: whoever removes
    ten thousand files measures that for the next five minutes, and not what was to be measured.
    """
    for folder, _folders, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink() and path.stat().st_size:
                path.chmod(0o600)
                os.truncate(path, 0)


def _text(chance: random.Random) -> bytes:
    """A megabyte of words, which compresses about as prose and markup do."""
    words = ["".join(chance.choices("etaoinshrdlucmfwypvbgkjqxz", k=chance.randint(2, 10))) for _ in range(_WORDS)]
    weights = [1 / (rank + 10) for rank in range(_WORDS)]
    return " ".join(chance.choices(words, weights, k=180_000)).encode()


def _write(path: Path, content: bytes, modified: int = WRITTEN) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (modified, modified))
