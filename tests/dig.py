"""Questions to a DNS server: by dig where it is installed, else by a client of our own."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import struct
import subprocess

import attrs
import pytest
from twisted.names import dns

from tests.eventually import LIMIT

DIG = shutil.which("dig")
needs_dig = pytest.mark.skipif(DIG is None, reason="dig is not installed (apt-get install bind9-dnsutils)")
_CODES = {dns.OK: "NOERROR", dns.ENAME: "NXDOMAIN", dns.EREFUSED: "REFUSED", dns.ESERVER: "SERVFAIL"}


@attrs.frozen
class Told:
    """An answer: its status, its flags, and the data of its records in their order."""

    status: str
    flags: frozenset[str]
    data: tuple[str, ...]


def ask(port: int, name: str, kind: str = "A", *options: str) -> Told:
    """Ask the server at ``port`` of this machine; ``options`` are dig's, which must be there then."""
    if DIG is None:
        assert not options
        return ask_by(socket.SOCK_STREAM, port, name, kind)
    command = [DIG, "@127.0.0.1", "-p", str(port), name, kind, "+tries=5", "+time=5", "+nocookie", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    status, flags = re.search(r"status: (\w+)", done.stdout), re.search(r"flags: ([^;]*);", done.stdout)
    assert status is not None, done.stdout
    assert flags is not None, done.stdout
    answers = re.search(r"ANSWER SECTION:\n((?:.+\n)+)", done.stdout)
    lines = answers[1].splitlines() if answers else []
    return Told(status[1], frozenset(flags[1].split()), tuple(line.split(None, 4)[4] for line in lines))


def ask_by(way: socket.SocketKind, port: int, name: str, kind: str = "A") -> Told:
    """The same once, by UDP (``SOCK_DGRAM``) or TCP (``SOCK_STREAM``), and never by dig."""
    question = dns.Message(id=4711)
    question.addQuery(name.encode(), dns.REV_TYPES[kind])
    asking = question.toStr()
    answer = dns.Message()
    with socket.socket(socket.AF_INET, way) as client:
        client.settimeout(LIMIT)
        client.connect(("127.0.0.1", port))
        if way == socket.SOCK_DGRAM:
            client.sendall(asking)
            answer.fromStr(client.recv(4096))
        else:
            client.sendall(struct.pack("!H", len(asking)) + asking)
            with client.makefile("rb") as answers:
                (length,) = struct.unpack("!H", answers.read(2))
                answer.fromStr(answers.read(length))
    flags = {flag for flag, is_set in (("aa", answer.auth), ("tc", answer.trunc)) if is_set}
    return Told(_CODES[answer.rCode], frozenset(flags), tuple(_shown(record.payload) for record in answer.answers))


def _shown(record: object) -> str:
    packed = getattr(record, "address", None)
    return str(record if packed is None else ipaddress.ip_address(packed))
