"""The example files in etc/: each setting is explained, each default is the true one, and nginx serves a dataset."""

from __future__ import annotations

import configparser
import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from farmsyncd.data.config import DataConfig
from farmsyncd.edges.cache.cachedir import CacheDir
from farmsyncd.edges.config import Schema, load, settings
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.node.config import NodeConfig
from tests.daemons import TREE
from tests.eventually import eventually

ETC = TREE / "etc"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin:/usr/local/sbin")
DAEMONS: list[tuple[str, type[Any]]] = [("data", DataConfig), ("node", NodeConfig), ("lb", BalancerConfig)]
OLD, NEW = "a" * 40, "b" * 40
PAGES = 40


def uncommented(text: str) -> str:
    """A file with the settings that it explains, but leaves out, put in."""
    return re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("daemon", "schema"), DAEMONS)
def test_an_example_can_be_used_as_it_stands(daemon: str, schema: type[Schema]) -> None:
    load(ETC / f"{daemon}.toml", schema)


@pytest.mark.parametrize(("daemon", "schema"), DAEMONS)
def test_an_example_explains_every_setting_with_its_true_default(
    daemon: str, schema: type[Schema], tmp_path: Path
) -> None:
    whole = tmp_path / f"{daemon}.toml"
    whole.write_text(uncommented((ETC / f"{daemon}.toml").read_text("utf-8")), "utf-8")
    assert list(differences(load(whole, schema), whole.read_text("utf-8"))) == []


def differences(config: Any, text: str) -> Iterator[str]:
    """Settings of ``config`` that ``text`` does not name, or that have another value than the default."""
    for one in settings(type(config)):
        value = getattr(config, one.field)
        if attrs.has(type(value)) and one.kind.nested:
            yield from differences(value, text)
        elif isinstance(value, dict):
            for part in value.values():
                yield from differences(part, text)
        elif not re.search(rf"^(#   )?{one.key} = ", text, re.MULTILINE):
            yield f"{one.key} is not named"
        elif not one.required and one.default not in (None, []) and value != one.kind.read(one.default):
            yield f"{one.key} is {value}, and its default is {one.default}"


@pytest.mark.parametrize("daemon", ["data", "node", "lb"])
def test_a_service_starts_its_daemon_with_its_file(daemon: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ETC / "systemd" / f"farmsync-{daemon}.service", "utf-8")
    command = unit["Service"]["ExecStart"].split()
    assert command[1:] == ["--nodaemon", "--pidfile=", f"farmsync-{daemon}", "--config", f"/etc/farmsync/{daemon}.toml"]
    assert unit["Service"]["RestartPreventExitStatus"] == "78"


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, found by way of its directory's descriptor: a test's path may be too long for one."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        directory = os.open(self._path.parent, os.O_PATH)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


def dataset(path: Path) -> CacheDir:
    """A dataset with two versions, in which every page says which one it is from."""
    cache = CacheDir(path)
    for version, letter in ((OLD, "old"), (NEW, "new")):
        tree = cache.staging_path(version)
        tree.mkdir(parents=True)
        for number in range(PAGES):
            (tree / f"page{number}.html").write_text(letter)
        cache.adopt(version)
    cache.point_link(OLD)
    return cache


@contextlib.contextmanager
def nginx(folder: Path, served: Path) -> Iterator[Path]:
    """The example's nginx with the dataset ``served``, on a Unix socket in ``folder``."""
    text = (ETC / "nginx.conf").read_text("utf-8")
    mime = next((p for p in ("/etc/nginx/mime.types", "/usr/local/nginx/conf/mime.types") if Path(p).exists()), None)
    temporary = "".join(f"{kind}_temp_path temp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    for old, new in (
        ("listen 8080;", "listen unix:nginx.sock;"),
        ("/var/lib/farmsync/node/shop", str(served)),
        ("http {", f"http {{ {temporary} access_log off;"),
        ("include mime.types;", f"include {mime};" if mime else "types {{ text/html html; }}"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    command += ["-g", f"daemon off; master_process off; pid {folder}/nginx.pid;"]
    checked = subprocess.run([*command, "-t"], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL) as process:
        try:
            yield folder / "nginx.sock"
        finally:
            process.terminate()


def asked(path: Path, url: str) -> tuple[int, str]:
    connection = UnixConnection(path)
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def reachable(path: Path) -> bool:
    try:
        return asked(path, "/page0.html")[0] == 200
    except OSError:
        return False


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
def test_claim_s1_14_a_real_web_server_serves_the_active_data_across_a_flip(tmp_path: Path) -> None:
    cache = dataset(tmp_path / "shop")
    with nginx(tmp_path, cache.path) as server:
        eventually(lambda: reachable(server))
        seen: list[tuple[int, str]] = []
        flipped, enough = threading.Event(), threading.Event()

        def browse() -> None:
            after = 0
            while after < PAGES:
                after += flipped.is_set()
                seen.append(asked(server, f"/page{len(seen) % PAGES}.html"))
                if len(seen) >= PAGES:
                    enough.set()

        browser = threading.Thread(target=browse)
        browser.start()
        assert enough.wait(30)
        cache.point_link(NEW)
        flipped.set()
        browser.join(30)
        assert not browser.is_alive()
        at = seen.index((200, "new"))
        assert set(seen[:at]) == {(200, "old")}
        assert set(seen[at:]) == {(200, "new")}
        assert asked(server, f"/{OLD}/page0.html") == (200, "old")
        assert asked(server, f"/{NEW}/page0.html") == (200, "new")
