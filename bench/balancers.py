"""What a balancer is measured with: two web servers for nodes, and the balancers themselves.

Ours is the daemon as it is installed; HAProxy has one thread, ``leastconn`` and ``stick on src``; nginx has one worker
and its stream module.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers import PeerMissing, find, free_port
from tests.daemons import Daemons

NODES = 2
_MODULE = "ngx_stream_module.so"
_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules")
_HAPROXY = """
global
    nbthread 1
    maxconn 6000
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    {option}
listen shop
    bind 127.0.0.1:{port}
    maxconn 6000
    balance leastconn
    stick-table type ip size 1m expire 30m
    stick on src
{servers}
"""
_STREAM = """
load_module {module};
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
error_log stderr crit;
pid {place}/nginx.pid;
events {{ worker_connections 18000; }}
stream {{
    upstream shop {{ least_conn; {servers} }}
    server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass shop; proxy_timeout 1h; }}
}}
"""
_WEB = """
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
error_log stderr crit;
pid {place}/nginx.pid;
events {{ worker_connections 18000; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 1h;
    keepalive_requests 100000000;
    client_body_temp_path {place};
    proxy_temp_path {place};
    fastcgi_temp_path {place};
    uwsgi_temp_path {place};
    scgi_temp_path {place};
    {listen}
}}
"""
_SITE = """
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        location = / {{ return 200 "hello\\n"; }}
        location /bulk {{ root {place}; sendfile_max_chunk 2m; }}
    }}
"""


class Program:
    """A process in the foreground with a directory of its own, in the block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = contextlib.ExitStack()
        self.place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="farmsync-bench-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, command: list[str], ports: list[int]) -> int:
        """Start, and wait until it listens; its process id."""
        process = subprocess.Popen(command, cwd=self.place, stdin=subprocess.DEVNULL)
        self._stack.callback(_end, process)
        ends = time.monotonic() + 30
        for port in ports:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                if process.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(f"{self.name} does not listen on port {port}")
                time.sleep(0.05)
        return process.pid

    def configured(self, name: str, text: str) -> str:
        """The path of a file with ``text``."""
        path = self.place / name
        path.write_text(text)
        return str(path)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_quietly(daemons: Daemons) -> None:
    """End them without showing their logs, which are for tests."""
    with contextlib.redirect_stdout(io.StringIO()):
        daemons.__exit__(None, None, None)


class Nodes(Program):
    """One nginx that is all nodes: a port for each. ``/`` is small, ``/bulk`` is ``bulk`` bytes."""

    def __init__(self, bulk: int) -> None:
        super().__init__("nginx")
        self.ports = [free_port() for _ in range(NODES)]
        with (self.place / "bulk").open("wb") as file:
            block = os.urandom(1 << 20)
            for _ in range(bulk >> 20):
                file.write(block)
        self.place.chmod(0o755)
        sites = "".join(_SITE.format(port=port, place=self.place) for port in self.ports)
        path = self.configured("nginx.conf", _WEB.format(place=self.place, listen=sites))
        self.start([find("nginx"), "-c", path], self.ports)


class Balancer(Program):
    """Something that balances; :attr:`pid` is its process, which may have others below it: all of them count."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.pid = 0
        self.port = 0

    def cpu_ns(self) -> dict[int, int]:
        """What CPU time each of its processes has used, with what the kernel did in its name."""
        return {pid: cpu_ns(pid) for pid in family(self.pid)}

    def memory(self) -> int:
        """The bytes of all its processes, what they share counted once (PSS): as far as they are the program's own.

        What the kernel holds for its sockets is in nobody's account; see :func:`kernel_memory`.
        """
        return sum(pss(pid) for pid in family(self.pid))


def family(pid: int) -> list[int]:
    """A process and all that it has started, and those in turn; itself first."""
    found = [pid]
    for one in found:
        found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def cpu_ns(pid: int) -> int:
    """The CPU time of all threads of a process, in nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def pss(pid: int) -> int:
    """The memory of a process, in bytes; of what others have as well, its part."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def kernel_memory() -> int:
    """What the kernel holds in its own structures, for everybody on this machine, in bytes: sockets are in there."""
    return _kilobytes(Path("/proc/meminfo"), "Slab:")


def _kilobytes(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel does not tell {name} in {path}")


class Ours(Balancer):
    """The daemon."""

    def __init__(self, nodes: Nodes, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(" ".join(("farmsync-lb", *arguments)))
        daemons = Daemons(self.place)
        self._stack.callback(end_quietly, daemons)
        named = [word for number, port in enumerate(nodes.ports) for word in ("--node", f"n{number}=127.0.0.1:{port}")]
        daemon = daemons.start("farmsync-lb", "--listen", "tcp:0:interface=127.0.0.1", *named, *arguments, state=False)
        daemon.ready()
        assert daemon.process is not None
        self.pid = daemon.process.pid
        self.port = int(daemon.addresses["listen"].rpartition(":")[2])


class HAProxy(Balancer):
    """HAProxy, with one more ``option`` if any."""

    def __init__(self, nodes: Nodes, option: str = "") -> None:
        super().__init__(f"haproxy{' ' + option if option else ''}")
        self.port = free_port()
        servers = "\n".join(f"    server n{number} 127.0.0.1:{port}" for number, port in enumerate(nodes.ports))
        text = _HAPROXY.format(port=self.port, servers=servers, option=f"option {option}" if option else "")
        self.pid = self.start([find("haproxy"), "-f", self.configured("haproxy.cfg", text), "-db"], [self.port])


class NginxStream(Balancer):
    """nginx's stream module."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__("nginx stream")
        module = next((place / _MODULE for place in map(Path, _MODULES) if (place / _MODULE).exists()), None)
        if module is None:
            raise PeerMissing("libnginx-mod-stream")
        self.port = free_port()
        servers = " ".join(f"server 127.0.0.1:{port};" for port in nodes.ports)
        text = _STREAM.format(port=self.port, servers=servers, place=self.place, module=module)
        self.pid = self.start([find("nginx"), "-c", self.configured("nginx.conf", text)], [self.port])
