"""STATE/DATASET of a node: versions, and the link that names the active one.

::

    active -> versions/VERSION     replaced in one rename
    versions/VERSION/              complete and read-only
    staging/VERSION/               on its way in; stays over a restart, so that staging can go on
    spare/VERSION/                 hard links to the files of an active version, made ahead for the next one's staging
    manifests/VERSION              the encoded manifest of a version that is in versions/ or staging/
    trash/                         on its way out
    pointer                        see ``pointerfile``

Each step is a rename that is whole or not at all, so that a crash leaves only what :meth:`CacheDir.recover` knows how
to clear. Nothing here is asynchronous: callers use a worker thread for what may take long (``remove``, ``recover``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from farmsyncd.edges.cache import leases
from farmsyncd.edges.content import durable
from farmsyncd.errors import LocalError


class CacheDir:
    """The directory ``path`` of one dataset, made when it is not there. One owner at a time (the node's state lock)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = path / "versions"
        self._staging = path / "staging"
        self._spares = path / "spare"
        self._manifests = path / "manifests"
        self._trash = path / "trash"
        self._link = path / "active"
        self._prepared: str | None = None
        for directory in (self._versions, self._staging, self._manifests, self._trash):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def pointer_path(self) -> Path:
        """Where the pointer file belongs."""
        return self.path / "pointer"

    def recover(self) -> None:
        """Clear what a crash left, once at start: half-removed trees, unfinished links and manifests.

        Staged trees stay (staging goes on with them), versions are made read-only again if they are not.
        """
        # Links to the active version are of use even if not all were made: staging looks at each of them.
        self.discard_spares(keep=self.active_link())
        for rubbish in self._trash.iterdir():
            _delete(rubbish)
        for directory in (self.path, self._manifests):
            for unfinished in directory.glob(f"*{durable.UNFINISHED}"):
                unfinished.unlink()
        self._prepared = None
        known = {*self.versions(), *self.stagings()}
        for manifest in self._manifests.iterdir():
            if manifest.name not in known:
                manifest.unlink()
        for version in self.versions():
            _seal(self.version_path(version))

    def versions(self) -> list[str]:
        """The complete versions on the disk, sorted by name."""
        return _directories(self._versions)

    def has(self, version: str) -> bool:
        """Whether ``version`` is complete on the disk."""
        return self.version_path(version).is_dir()

    def version_path(self, version: str) -> Path:
        """Where the complete tree of ``version`` is, or will be."""
        return self._versions / version

    def stagings(self) -> list[str]:
        """The versions on their way in, sorted by name."""
        return _directories(self._staging)

    def staging_path(self, version: str) -> Path:
        """Where ``version`` is to be assembled. Not made here."""
        return self._staging / version

    def spare_path(self, version: str) -> Path:
        """Where links to the files of ``version`` may be made ahead. Not made here."""
        return self._spares / version

    def use_spare(self, base: str, version: str) -> None:
        """Let the links to ``base``, if there are any, be what ``version`` is assembled in, if it is not begun."""
        spare, target = self.spare_path(base), self.staging_path(version)
        if spare.is_dir() and not target.is_dir():
            self._move(spare, target)

    def discard_spares(self, keep: str | None = None) -> None:
        """Remove all links that were made ahead, but for those to the version ``keep``."""
        for version in _directories(self._spares) if self._spares.is_dir() else ():
            if version != keep:
                rubbish = self._trash_path(version)
                self._move(self.spare_path(version), rubbish)
                _delete(rubbish)

    def adopt(self, version: str) -> None:
        """Make the staged tree of ``version``, complete and fsynced, one of the versions; durable on return.

        A version of that name that is there already (a damaged one that was copied again) goes to the trash; no
        harm when it was adopted before. Raises LocalError when there is nothing to adopt.
        """
        source, target = self.staging_path(version), self.version_path(version)
        if not source.is_dir():
            if target.is_dir():
                return
            raise LocalError(f"expected version {version} staged in {source}, and nothing is there: stage it again")
        replaced = self._trash_path(version) if target.is_dir() else None
        if replaced is not None:
            self._move(target, replaced)
        self._move(source, target)
        _seal(target)
        for directory in (target, self._versions, self._staging):
            durable.sync_directory(directory)
        if replaced is not None and not leases.leased(replaced):
            _delete(replaced)  # else at the next start: its readers have nothing better than a damaged tree

    def active_link(self) -> str | None:
        """The version that the ``active`` link names, whether or not it is there; None without a link."""
        try:
            return self._link.readlink().name
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LocalError(
                f"expected a symbolic link {self._link}: {error.strerror}; move it out of the way"
            ) from None

    def prepare_link(self, version: str) -> None:
        """Do now what :meth:`point_link` to ``version`` would have to do at the instant of the flip."""
        if not self.has(version):
            raise LocalError(f"expected version {version} in {self._versions} before it becomes active; stage it first")
        unfinished = self._unfinished_link
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
        unfinished.symlink_to(Path("versions") / version)
        self._prepared = version

    def point_link(self, version: str, *, durable: bool = True) -> None:
        """Make ``version`` the active one for whoever follows the link, in one rename.

        With ``durable=False`` the caller does :meth:`settle` later, so that no disk is waited for at the instant.
        Raises LocalError when the version is not there or something that is no link is in the way.
        """
        if self._prepared != version:
            self.prepare_link(version)
        try:
            self._unfinished_link.replace(self._link)
        except IsADirectoryError:
            raise LocalError(
                f"expected a symbolic link {self._link}, found a directory; move it out of the way"
            ) from None
        self._prepared = None
        if durable:
            self.settle()

    def settle(self) -> None:
        """Make the link durable."""
        durable.sync_directory(self.path)

    def leased(self, version: str) -> bool:
        """Whether a reader uses ``version`` at this moment."""
        return leases.leased(self.version_path(version))

    def remove(self, version: str) -> bool:
        """Remove ``version`` and its manifest, unless somebody uses it: then False. The caller knows that it may go."""
        directory = self.version_path(version)
        if not directory.is_dir():
            self._forget_manifest(version)
            return True
        lock = leases.claim(directory)
        if lock is None:
            return False
        rubbish = self._trash_path(version)
        try:
            self._move(directory, rubbish)
        finally:
            lock.release()
        self._forget_manifest(version)
        durable.sync_directory(self._versions)
        _delete(rubbish)
        return True

    def discard_staging(self, version: str) -> None:
        """Give up a version on its way in."""
        staged = self.staging_path(version)
        if staged.is_dir():
            rubbish = self._trash_path(version)
            self._move(staged, rubbish)
            _delete(rubbish)
        if not self.has(version):
            self._forget_manifest(version)

    def save_manifest(self, version: str, encoded: bytes) -> None:
        """Keep the encoded manifest of ``version``; durable on return."""
        durable.write_file(self._manifests / version, encoded)

    def manifest(self, version: str) -> bytes | None:
        """The encoded manifest of ``version``, None when there is none."""
        try:
            return (self._manifests / version).read_bytes()
        except FileNotFoundError:
            return None

    @property
    def _unfinished_link(self) -> Path:
        return self.path / f"active{durable.UNFINISHED}"

    def _trash_path(self, version: str) -> Path:
        return self._trash / f"{version}.{secrets.token_hex(4)}"

    def _forget_manifest(self, version: str) -> None:
        (self._manifests / version).unlink(missing_ok=True)

    @staticmethod
    def _move(source: Path, target: Path) -> None:
        # To move a directory elsewhere is to write its "..": without write permission only root may.
        source.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IWUSR)
        source.rename(target)


def _directories(parent: Path) -> list[str]:
    with os.scandir(parent) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _seal(directory: Path) -> None:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o222:
        directory.chmod(mode & ~0o222)


def _delete(path: Path) -> None:
    """Remove a tree whose directories may be read-only. Files keep their mode: other versions share them."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    for directory, _, _ in os.walk(os.fsencode(path)):
        os.chmod(directory, stat.S_IRWXU)  # noqa: PTH101 - names are bytes
    shutil.rmtree(os.fsencode(path))
