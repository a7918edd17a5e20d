"""``ActiveCache``: a node's data in a Python web application, without a word to the node's daemon.

::

    cache = ActiveCache("STATE/DATASET")              # once per process, or at import; any thread may use it
    with cache.snapshot() as snap:                    # one version for as long as the block lasts, across a flip
        snap.version, snap["prices.json"], snap.path("img/logo.png")

Which version is active is decided by comparing the machine's clock with the activation time, which the node leaves in
a small file *before* it comes: all processes of the machine flip together, even if the node's daemon died meanwhile.

How it is fast: everything that a decision rests on is one ``_View``, which says until when it holds and which bytes
of the mapped pointer file it was made from. As long as neither changed, :meth:`ActiveCache.snapshot` takes no lock
and calls no kernel, and a file that was read before is a look into a dict.

How it is safe: a ``_Held`` version owns a lease on its directory, and whoever uses the version refers to it; with the
last reference the lease goes. So nobody counts anything, and a thread that dies cannot count wrongly.
"""

from __future__ import annotations

import functools
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from farmsyncd.edges.cache import leases
from farmsyncd.edges.cache.beneath import is_relative, open_beneath, walk_beneath
from farmsyncd.edges.cache.pointerfile import HINT_BYTES, PointerReader, boot_id
from farmsyncd.errors import Unavailable

MEMO_BYTES: Final = 64 * 1024 * 1024
_Default = TypeVar("_Default")
_RECHECK_NS: Final = 1_000_000_000  # a pointer file that was made anew is noticed after at most this long
_TRIES: Final = 50
_PAUSE_S: Final = 0.001
_NO_MEMO: Final[dict[str, bytes]] = {}  # of a snapshot whose block is over
_machine_ns: Final = functools.partial(time.clock_gettime_ns, time.CLOCK_MONOTONIC_RAW)


class _Held:
    """A version that this process has a lease on, and those of its small files that were read."""

    __slots__ = ("_largest", "_lease", "_lock", "_room", "memo", "path", "version")

    def __init__(self, version: str, path: Path, lease: leases.Lease, memo_bytes: int) -> None:
        self.version = version
        self.path = path
        self.memo: dict[str, bytes] = {}
        self._lease = lease
        self._lock = threading.Lock()
        self._room = memo_bytes
        self._largest = memo_bytes // 8

    def open(self, name: str) -> int | None:
        """A descriptor of the file ``name``, None when there is none."""
        return open_beneath(self._lease.descriptor, name)

    def read(self, name: str) -> bytes:
        """The content of the file ``name``; KeyError when there is none."""
        descriptor = self.open(name)
        if descriptor is None:
            raise KeyError(name)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            content = file.read()
        if len(content) <= self._largest:
            self._remember(name, content)
        return content

    def names(self) -> Iterator[str]:
        """The names of all files."""
        return walk_beneath(self._lease.descriptor)

    def _remember(self, name: str, content: bytes) -> None:
        # Never wait here: after a fork, the lock's holder may be a thread that is not there any more.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if name not in self.memo:
                self._room -= len(content)
                while self._room < 0:
                    self._room += len(self.memo.pop(next(iter(self.memo))))
                self.memo[name] = content
        finally:
            self._lock.release()


class Snapshot:
    """One version of the dataset, from :meth:`ActiveCache.snapshot`, until its ``with`` block ends.

    Names are relative paths with ``/``, as ``os.fsdecode`` spells bytes that are no UTF-8. Symbolic links are
    followed within the version; nothing outside of it can be named.
    """

    __slots__ = ("_held", "_memo", "version")

    def __init__(self, held: _Held) -> None:
        self._held: _Held | None = held
        self._memo = held.memo
        self.version = held.version
        """The version: 40 hexadecimal digits."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = None
        self._memo = _NO_MEMO

    def __getitem__(self, name: str) -> bytes:
        """The content of the file ``name``. KeyError when the version has no such file."""
        try:
            return self._memo[name]
        except KeyError:
            pass
        return self._in_use().read(name)

    def get(self, name: str, default: _Default | None = None) -> bytes | _Default | None:
        """The content of the file ``name``, or ``default`` when the version has no such file."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: str) -> bool:
        descriptor = self._in_use().open(name)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def __iter__(self) -> Iterator[str]:
        """The names of the version's files (symbolic links are not among them)."""
        return self._in_use().names()

    def path(self, name: str = "") -> Path:
        """Where ``name`` is on the disk, below ``versions/VERSION``: safe from removal until the block ends.

        Raises ValueError for a name that would lead out of the version; whether it is there is not looked at.
        """
        held = self._in_use()
        if name and not is_relative(name):
            raise ValueError(f"expected a relative path without '.', '..' or empty parts, found {name!r}")
        return held.path / name

    def _in_use(self) -> _Held:
        if self._held is None:
            raise ValueError("this snapshot's block is over; use it inside of `with cache.snapshot() as snap:`")
        return self._held


class _View:
    """Which version is active, and for how long that needs no second look."""

    __slots__ = ("cycle", "held", "hint", "mapped", "until_ns")

    def __init__(
        self, held: _Held | None, cycle: int | None, until_ns: int, mapped: mmap.mmap | bytes, hint: bytes
    ) -> None:
        self.held = held
        self.cycle = cycle
        self.until_ns = until_ns
        self.mapped = mapped
        self.hint = hint


_BLIND: Final = _View(None, None, -(2**63), b"", b"")  # must be looked at again, always


class ActiveCache:
    """The active version of one dataset on this machine.

    ``path`` is the dataset's directory in the node's state, ``memo_bytes`` bounds the small files of a version that
    are kept in memory. Threads share one; processes each have their own, those made by fork(2) too. ``machine_ns``
    and ``boot`` (what the machine's clock shows, and which boot it belongs to) are for tests.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        memo_bytes: int = MEMO_BYTES,
        machine_ns: Callable[[], int] = _machine_ns,
        boot: bytes | None = None,
    ) -> None:
        self._path = Path(path).absolute()  # the process may change its directory later
        self._memo_bytes = memo_bytes
        self._machine_ns = machine_ns
        self._boot = boot_id() if boot is None else boot
        self._reader: PointerReader | None = None
        self._lock = threading.Lock()
        self._view = _BLIND
        os.register_at_fork(after_in_child=functools.partial(_call, weakref.WeakMethod(self._after_fork)))

    def snapshot(self) -> Snapshot:
        """The version that is active now, to be used in a ``with`` block.

        Raises Unavailable while the node has no active version of the dataset.
        """
        view = self._view
        if self._machine_ns() >= view.until_ns or view.mapped[:HINT_BYTES] != view.hint:
            view = self._look(view)
        assert view.held is not None
        return Snapshot(view.held)

    def close(self) -> None:
        """Give the lease back as soon as no block uses it. The next :meth:`snapshot` takes a new one."""
        with self._lock:
            self._view = _BLIND

    def _look(self, stale: _View) -> _View:
        with self._lock:
            view = self._view
            if view is not stale and self._machine_ns() < view.until_ns and view.mapped[:HINT_BYTES] == view.hint:
                return view  # another thread has looked meanwhile
            for _ in range(_TRIES):
                fresh = self._decide(view)
                if fresh is not None:
                    self._view = fresh
                    return fresh
                time.sleep(_PAUSE_S)  # the version went between the decision and the lease: decide again
            raise Unavailable(
                f"expected the active version of {self._path} in its folder versions/, and it is not there: "
                "start the node (twistd farmsync-node), which looks after its files"
            )

    def _decide(self, last: _View) -> _View | None:
        """What is active now, with a lease; None when that version cannot be held."""
        now_ns = self._machine_ns()
        reader = self._follow_pointer()
        pointer = None if reader is None else reader.read_again()
        if reader is None or pointer is None or pointer.boot_id != self._boot:
            held = self._hold(self._linked(last), last.held)
            return None if held is None else _View(held, None, _BLIND.until_ns, b"", b"")
        version, cycle = pointer.current(now_ns), pointer.current_cycle(now_ns)
        until_ns = now_ns + _RECHECK_NS
        if pointer.flips_at_machine_ns is not None and not pointer.flipped(now_ns):
            until_ns = min(until_ns, pointer.flips_at_machine_ns)
            if last.held is not None and (last.held.version, last.cycle) == (pointer.next_version, pointer.next_cycle):
                version, cycle = pointer.next_version, pointer.next_cycle  # a flip that was seen is not taken back
        if version is None:
            raise Unavailable(f"{self._path} has no active version yet: its first activation is still to come")
        held = self._hold(version, last.held)
        return None if held is None else _View(held, cycle, until_ns, reader.mapped, reader.seen)

    def _follow_pointer(self) -> PointerReader | None:
        if self._reader is None or self._reader.replaced():
            try:
                self._reader = PointerReader(self._path / "pointer")
            except (FileNotFoundError, ValueError):
                self._reader = None
        return self._reader

    def _linked(self, last: _View) -> str:
        """What the ``active`` link names: all there is to go by until the node has started after a boot."""
        try:
            return (self._path / "active").readlink().name
        except OSError:
            if last.held is not None:
                return last.held.version  # better than nothing, and still whole
            raise Unavailable(
                f"expected a node's dataset in {self._path}, and it has no active version: start the node "
                "(twistd farmsync-node) and publish the dataset (farmsync publish), or correct the path"
            ) from None

    def _hold(self, version: str, held: _Held | None) -> _Held | None:
        if held is not None and held.version == version:
            return held
        path = self._path / "versions" / version
        lease = leases.share(path)
        return None if lease is None else _Held(version, path, lease, self._memo_bytes)

    def _after_fork(self) -> None:
        # In the child: the parent's threads are gone, and with them whoever could release the lock. The child takes
        # leases of its own; its copies of the parent's go with the last snapshot that refers to them.
        self._lock = threading.Lock()
        self._view = _BLIND


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        bound()
