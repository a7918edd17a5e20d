"""Archives from outside, unpacked where they can do no harm. Blocks: for worker threads."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from pathlib import Path

from farmsyncd.errors import BadInput

_MOST_MEMBERS = 5_000_000
_PIECE = 1 << 20
_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


def is_tar(path: Path, name: str) -> bool:
    """Whether the file is a tar archive, packed or not.

    Raises BadInput when it is none, but should be by its ``name``: a damaged archive is no file to be published.
    """
    try:
        found = tarfile.is_tarfile(path)
    except (EOFError, OSError, zlib.error, lzma.LZMAError):
        found = False
    if not found and name.lower().endswith(_SUFFIXES):
        raise BadInput(f"expected a tar archive, by the name {name}, and something else came, or a damaged one")
    return found


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
            # The checksum of what is packed comes after the archive's own end.
            assert tar.fileobj is not None
            while tar.fileobj.read(_PIECE):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"expected a whole tar archive whose names stay inside it: {error}") from error
