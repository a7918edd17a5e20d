"""Archives from outside, unpacked where they can do no harm. Blocks: for worker threads."""

from __future__ import annotations

import tarfile
from pathlib import Path

from farmsyncd.errors import BadInput

_MOST_MEMBERS = 5_000_000


def is_tar(path: Path) -> bool:
    """Whether the file is a tar archive, packed or not."""
    return tarfile.is_tarfile(path)


def unpack(archive: Path, into: Path, limit_bytes: int) -> None:
    """Unpack a tar archive (plain, gzip, bzip2 or xz) into the directory ``into``.

    Raises BadInput for what is no whole archive, for members that would land elsewhere or are devices, and for one
    that would be larger than ``limit_bytes`` unpacked; nothing is written of the member that is at fault.
    """
    total = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for count, member in enumerate(tar, 1):
                total += member.size if member.isreg() else 0
                if total > limit_bytes or count > _MOST_MEMBERS:
                    raise BadInput(
                        f"expected an archive of at most {limit_bytes} bytes and {_MOST_MEMBERS} names, and it has "
                        "more: raise the source's limit if that is right"
                    )
                tar.extract(member, into, set_attrs=not member.isdir(), filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(f"expected a whole tar archive whose names stay inside it: {error}") from error
