"""Directories that cannot be published: all faults told by name, status 65, and nothing of them at the data server."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemons
from tests.dataserver import tree
from tests.eventually import eventually
from tests.shell import Shell

LOCAL = "tcp:0:interface=127.0.0.1"
WITHOUT = "remove it, or publish a directory without it"
REPLACE = "put what it leads to in its place, or remove it"

# Root reads what it may not, by two capabilities. Without the right to drop them there is nothing to drop.
UNPRIVILEGED = """
import ctypes, os, sys
if not os.environ.get("UNPRIVILEGED"):
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, which takes effect with the next program
    os.environ["UNPRIVILEGED"] = "1"
    os.execv(sys.executable, sys.orig_argv)
"""

RESTLESS = """
import itertools, os, pathlib
_readv, _times = os.readv, itertools.count(1)
def readv(fd, buffers):
    os.utime({path!r}, ns=(0, next(_times)))
    return _readv(fd, buffers)
os.readv = readv
"""

CHANGED_BEFORE_IT_IS_SENT = """
import pathlib
from farmsyncd.cli import publish
_upload = publish.upload
def upload(*arguments):
    pathlib.Path({path!r}).write_bytes(b"another one")
    return _upload(*arguments)
publish.upload = upload
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a data server, which must go on whatever is offered to it."""
    with Daemons(tmp_path_factory.mktemp("data")) as daemons:
        server = daemons.start("farmsync-data", "--listen", LOCAL, name="data")
        yield server.address("listen")
        assert "Traceback" not in server.log


@pytest.fixture
def shell(data: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, data)


def refused(shell: Shell, path: Path, meddling: str = "") -> str:
    """What ``publish`` says of a directory that it must not publish; the data server hears nothing of it."""
    before = shell.status()["datasets"]
    said = shell.fails(65, "publish", "shop", str(path), "--now", meddling=meddling)
    assert shell.status()["datasets"] == before
    return said


def test_a_source_that_does_not_exist(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    assert refused(shell, path) == (
        f"farmsync: expected a directory at {path}, and it cannot be read: No such file or directory; check the path\n"
    )


def test_a_source_that_is_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a directory")
    assert "found something else: publish the directory it is in" in refused(shell, path)


def test_what_cannot_be_read_and_what_cannot_be_published_is_told_all_at_once_by_name(
    shell: Shell, tmp_path: Path
) -> None:
    site = tree(tmp_path / "site", good="good")
    (site / "closed directory").mkdir(mode=0)
    os.mkfifo(site / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        fd = os.open(site, os.O_RDONLY)
        unix.bind(f"/proc/self/fd/{fd}/socket")  # a way to it that is short enough
        os.close(fd)
    (site / "out").symlink_to("../elsewhere")
    (site / "absolute").symlink_to("/etc/hostname")
    faults = {
        "closed directory: cannot be read: Permission denied; let this user read it",
        "pipe: expected files, directories and links, and this is a named pipe; " + WITHOUT,
        "socket: expected files, directories and links, and this is a socket; " + WITHOUT,
        "out: expected a link that stays inside the tree, and it leads to ../elsewhere; " + REPLACE,
        "absolute: expected a link that stays inside the tree, and it leads to /etc/hostname; " + REPLACE,
    }
    said = refused(shell, site, UNPRIVILEGED)
    headline, *lines = said.splitlines()
    assert headline == f"farmsync: {site} cannot be published: {len(faults)} faults:"
    assert {line.strip() for line in lines} == faults


def test_a_file_that_cannot_be_read(shell: Shell, tmp_path: Path) -> None:
    site = tree(tmp_path / "site", good="good", closed="closed")
    (site / "closed").chmod(0)
    said = refused(shell, site, UNPRIVILEGED)
    assert f"{site} cannot be published: closed: cannot be read: Permission denied; let this user read it" in said


def test_a_source_that_holds_a_device(shell: Shell, tmp_path: Path) -> None:
    site = tree(tmp_path / "site", good="good")
    try:
        os.mknod(site / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:  # only root may make one; but everybody has a directory of them
        site = Path("/dev")
    assert "expected files, directories and links, and this is a device; remove it" in refused(shell, site)


def test_a_file_that_changes_while_it_is_read(shell: Shell, tmp_path: Path) -> None:
    site = tree(tmp_path / "site", good="good", restless=b"x" * 2_000_000)
    said = refused(shell, site, RESTLESS.format(path=str(site / "restless")))
    assert f"{site} cannot be published: restless: it changes while it is read; publish a copy that is at rest" in said


def test_a_file_that_changes_after_it_was_read_and_before_it_is_sent(shell: Shell, tmp_path: Path) -> None:
    site = tree(tmp_path / "site", moved="the first one", still="still")
    said = refused(shell, site, CHANGED_BEFORE_IT_IS_SENT.format(path=str(site / "moved")))
    assert "moved: it changed after it was read; publish a copy that is at rest" in said
    published = shell.json("publish", "moved", str(site), "--in", "1h")
    assert published["files"] == 2


def test_a_source_that_a_periodic_dataset_cannot_read_is_told_in_the_log_and_harms_no_other(
    daemons: Daemons, tmp_path: Path
) -> None:
    good, late = tree(tmp_path / "good", a="a"), tmp_path / "late"
    config = tmp_path / "data.toml"
    config.write_text(
        f'[data]\n[data.dataset.good]\ndirectory = "{good}"\nperiod = "1h"\n'
        f'[data.dataset.late]\ndirectory = "{late}"\nperiod = "1s"\n'
    )
    server = daemons.start("farmsync-data", "--listen", LOCAL, "--config", str(config))
    shell = Shell(tmp_path, server.address("listen"))
    line = f"late: its source could not be read: expected a directory at {late}, and it cannot be read: No such file"
    eventually(lambda: line in server.log)
    eventually(lambda: shell.status()["datasets"].keys() == {"good"})
    tree(late, b="b")
    eventually(lambda: shell.status()["datasets"].keys() == {"good", "late"})
    assert "Traceback" not in server.log
