from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile
from tests.caches import add, pointer
from tests.daemons import environment
from tests.eventually import eventually

_READER = """
import sys, time
from farmsyncd.reader import ActiveCache
cache, last, wanted = ActiveCache(sys.argv[1]), -1, int(sys.argv[2])
while last < wanted:
    with cache.snapshot() as snap:
        one, two = int(snap["one"]), int(snap.path("two").read_bytes())
    assert one == two, f"a mixture: {one} and {two}"
    assert one >= last, f"back from {last} to {one}"
    if one > last:
        print(one, flush=True)
    last = one
    time.sleep(0.0002)
"""


def _machine_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def test_claim_s1_04_processes_never_see_a_mixture_and_never_go_back(tmp_path: Path) -> None:
    directory = CacheDir(tmp_path / "shop")
    node = PointerFile(directory.pointer_path)
    rounds = 30
    versions = [add(directory, {"one": b"0", "two": b"0"})]
    node.write(pointer(versions[0], cycle=0))
    command = [sys.executable, "-c", _READER, str(directory.path), str(rounds)]
    readers = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == b"0\n"
        assert directory.leased(versions[0])
        for number in range(1, rounds + 1):
            versions.append(add(directory, dict.fromkeys(("one", "two"), b"%d" % number)))
            flips_at_ns = _machine_ns() + 2_000_000
            node.write(pointer(versions[-2], versions[-1], flips_at_ns, cycle=number - 1))
            while _machine_ns() < flips_at_ns:
                time.sleep(0.0005)
            node.write(pointer(versions[-1], cycle=number))
            for old in versions[:-2]:
                directory.remove(old)
        told = [reader.communicate(timeout=60) for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert [(reader.returncode, errors) for reader, (_, errors) in zip(readers, told, strict=True)] == [(0, b"")] * 2
    assert all(output.splitlines()[-1] == b"%d" % rounds for output, _ in told)
    assert all(directory.remove(version) for version in versions)


_FORKING = """
import os, signal, sys, threading
from pathlib import Path
from farmsyncd.edges.cache import leases
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.cache.pointerfile import PointerFile
from farmsyncd.reader import ActiveCache
from tests.caches import add, pointer

directory = CacheDir(Path(sys.argv[1]))
node = PointerFile(directory.pointer_path)
first, second, third = (add(directory, {"page": name}) for name in (b"first", b"second", b"third"))
node.write(pointer(first, cycle=1))
cache = ActiveCache(directory.path)
signal.alarm(60)


class Child:
    '''A forked process that does one thing after the other, each when it is told to.'''

    def __init__(self, *steps):
        order, self.go = os.pipe()
        self.done, report = os.pipe()
        self.id = os.fork()
        if self.id == 0:
            os.close(self.go)
            os.close(self.done)
            signal.alarm(60)
            try:
                for step in steps:
                    os.read(order, 1)
                    os.write(report, str(step()).ljust(60).encode())
                os.read(order, 1)
            finally:
                os._exit(0)
        os.close(order)
        os.close(report)

    def step(self):
        os.write(self.go, b".")
        return os.read(self.done, 60).decode().strip()

    def end(self):
        os.close(self.go)
        os.waitpid(self.id, 0)


def page():
    with cache.snapshot() as snap:
        return snap["page"].decode()


def holds(*versions):
    names = {"first": first, "second": second, "third": third}
    found = [name for name, version in names.items() if directory.leased(version)]
    assert found == list(versions), (found, versions)


# The child takes a lease of its own, and keeps it when the parent lets go.
assert page() == "first"
child = Child(page)
assert child.step() == "first"
cache.close()
holds("first")
child.end()
holds()

# A child that reads nothing holds nothing, although it was given a copy of the parent's descriptor.
assert page() == "first"
idle = Child(lambda: "awake", page)
assert idle.step() == "awake"
node.write(pointer(second, cycle=2))
assert page() == "second"
holds("second")
assert idle.step() == "second"
idle.end()

# A block that is open at the fork is open in both, and ends in each by itself.
with cache.snapshot() as snap:
    inside = Child(lambda: snap["page"].decode(), lambda: snap.__exit__(None, None, None))
    assert inside.step() == "second"
node.write(pointer(third, cycle=3))
assert page() == "third"
holds("second", "third")
inside.step()
holds("third")
inside.end()

# A lock that another thread has at the fork is no trouble for the child.
cache._lock.acquire()
cache._view.held._lock.acquire()
child = Child(page)
assert child.step() == "third"
child.end()
print("all good")
"""


def test_forked_processes_hold_leases_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING, str(tmp_path / "shop")]
    told = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True, timeout=120)
    assert (told.returncode, told.stdout, told.stderr) == (0, "all good\n", "")


def test_a_killed_reader_leaves_no_lease(tmp_path: Path) -> None:
    directory = CacheDir(tmp_path / "shop")
    version = add(directory, {"one": b"0", "two": b"0"})
    PointerFile(directory.pointer_path).write(pointer(version))
    command = [sys.executable, "-c", _READER, str(directory.path), "1"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"0\n"
        refused = not directory.remove(version)
        reader.kill()
    assert refused
    assert eventually(lambda: directory.remove(version))


def test_the_reader_needs_neither_twisted_nor_the_daemons() -> None:
    code = (
        "import sys, farmsyncd.reader\n"
        "heavy = {'twisted', 'zope', 'treq', 'zstandard', 'blake3'}\n"
        "print([name for name in sys.modules if name.split('.')[0] in heavy"
        " or name.startswith(('farmsyncd.data', 'farmsyncd.node', 'farmsyncd.lb', 'farmsyncd.cli'))])"
    )
    told = subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True, timeout=60)
    assert told.stdout == b"[]\n"
