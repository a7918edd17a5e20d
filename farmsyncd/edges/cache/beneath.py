"""Names below one open directory, and nothing else: ``..`` and absolute names lead nowhere, nor do links that leave.

Trees of versions never change, so that links can be followed here, one component after another, without a race.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

_MOST_LINKS = 40  # as the kernel has it
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def is_relative(name: str) -> bool:
    """Whether ``name`` can name something below a directory: plain parts with a single slash between."""
    return "\0" not in name and all(part not in {"", ".", ".."} for part in name.split("/"))


def open_beneath(directory: int, name: str) -> int | None:
    """A descriptor of the regular file ``name`` below the open ``directory``; None when there is no such file."""
    if not is_relative(name):
        return None
    try:
        resolved = _resolve(directory, name)
        if resolved is None:
            return None
        descriptor = os.open(resolved, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except UnicodeEncodeError:
        return None
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def walk_beneath(directory: int) -> Iterator[str]:
    """The names of all regular files below the open ``directory``, sorted within each directory."""
    for top, subdirectories, files, descriptor in os.fwalk(".", dir_fd=directory):
        subdirectories.sort()
        for file in sorted(files):
            if stat.S_ISREG(os.stat(file, dir_fd=descriptor, follow_symlinks=False).st_mode):
                yield os.path.normpath(f"{top}/{file}")


def _resolve(directory: int, name: str) -> str | None:
    """``name`` with all its symbolic links followed; None when they lead out or round in a circle."""
    resolved: list[str] = []
    pending = name.split("/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not resolved:
                return None
            resolved.pop()
            continue
        try:
            target = os.readlink("/".join([*resolved, part]), dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            resolved.append(part)  # no link
            continue
        links += 1
        if links > _MOST_LINKS or target.startswith("/"):
            return None
        pending.extend(target.split("/")[::-1])
    return "/".join(resolved) or "."
