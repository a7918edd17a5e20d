"""Real HAProxy and nginx for tests, on ports that are theirs alone: bound here, and listened on by them only."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.eventually import LIMIT, eventually

_SYSTEM = "/usr/sbin:/sbin:/usr/local/sbin"


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM)


HAPROXY, NGINX = _program("haproxy"), _program("nginx")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed (apt-get install haproxy)")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")


def reserved(host: str = "127.0.0.1") -> socket.socket:
    """A port that nobody else is given, while whoever knows of it can listen on it."""
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((host, 0))
    return one


def port_of(one: socket.socket) -> int:
    """Its number."""
    return int(one.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], folder: Path) -> Iterator[None]:
    log = folder / "output"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"--- output of {command[0]}\n{log.read_text('utf-8', 'replace')}")


@contextlib.contextmanager
def haproxy(folder: Path, text: str, *ports: socket.socket) -> Iterator[Path]:
    """HAProxy with the configuration ``text``, in which ``{0}``, ``{1}`` ... stand for the addresses it listens on.

    Its statistics socket is the path that is given, relative to ``folder``; see :func:`haproxy_says`.
    """
    assert HAPROXY is not None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "haproxy.cfg").write_text(_HAPROXY + _with_addresses(text, ports))
    with _running([HAPROXY, "-db", "-f", "haproxy.cfg"], folder):
        path = folder / "stats.sock"
        eventually(lambda: "Version" in haproxy_says(path, "show info"), what="HAProxy runs")
        yield path


def _with_addresses(text: str, ports: Sequence[socket.socket]) -> str:
    for number, one in enumerate(ports):
        host, port = one.getsockname()[:2]
        text = text.replace(f"{{{number}}}", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return text


_HAPROXY = """
global
    stats socket unix@stats.sock mode 600 level admin
defaults
    timeout connect 30s
    timeout client 60s
    timeout server 60s
"""


def haproxy_says(path: Path, command: str) -> str:
    """HAProxy's answer to a command on its statistics socket; empty while it does not answer."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")  # the whole path may be too long for a socket
            connection.sendall(f"{command}\n".encode())
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
            return b"".join(parts).decode()
    except OSError:
        return ""
    finally:
        os.close(directory)


@contextlib.contextmanager
def nginx(folder: Path, servers: str, *ports: socket.socket) -> Iterator[None]:
    """nginx with these ``servers``, in which ``{0}``, ``{1}`` ... stand for the addresses that it listens on."""
    assert NGINX is not None
    folder.mkdir(parents=True, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path temp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"daemon off; master_process off; pid {folder}/nginx.pid; events {{}}"
    text = f"{main}\nhttp {{\n{temporary}\n{_with_addresses(servers, ports)}\n}}\n"
    (folder / "nginx.conf").write_text(text)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with _running(command, folder):
        eventually((folder / "nginx.pid").exists, what="nginx runs")
        yield


def get(port: int, source: str = "127.0.0.1", host: str = "127.0.0.1", path: str = "/") -> tuple[str, int]:
    """The body that a request over HTTP from the address ``source`` is answered with, and the port it came from."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(LIMIT)
        client.bind((source, 0))
        client.connect((host, port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := client.recv(1 << 16):
            parts.append(part)
        own = client.getsockname()[1]
    head, _, body = b"".join(parts).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 "), head
    return body.strip(), own
