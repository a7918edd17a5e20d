"""The PROXY protocol, versions 1 and 2: what a balancer says before a client's first byte.

A header that is read must be right in each of its bytes, and short: there is no telling what a peer meant by another
one, and who believes it believes whoever wrote it. Addresses are as the socket module has them: host and port, or the
path of a Unix socket.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import Final

import attrs

from farmsyncd.errors import PeerError

Address = tuple[str, int] | str
"""Host and port; or the path of a Unix socket, which is empty for one without a name."""

LONGEST: Final = 2048
"""A header of version 2 may be so long, in bytes; what others send has a few hundred."""
LONGEST_V1: Final = 107
"""A header of version 1 may be so long, in bytes, its end of line included."""

_V1_START: Final = b"PROXY "
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_SIZES: Final = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_PORTS: Final = struct.Struct("!HH")
_UNIX_PATH: Final = 108
_CHECKSUM: Final = 0x03
_SHOWN: Final = 60


class Fault(enum.Enum):
    """What can be wrong with the beginning of a connection that must begin with a header."""

    UNTRUSTED = "untrusted"
    """It comes from where no headers are accepted from."""
    MISSING = "missing"
    """It begins with something else."""
    MALFORMED = "malformed"
    IMPOSSIBLE = "impossible"
    """The header names a client where nobody can be."""
    TOO_LONG = "too_long"
    CUT_OFF = "cut_off"
    """It ended before the header was whole."""
    LATE = "late"
    """The header was not whole in time."""


class HeaderError(PeerError):
    """A connection does not begin as it must."""

    def __init__(self, why: str, fault: Fault = Fault.MALFORMED) -> None:
        super().__init__(why)
        self.fault = fault


@attrs.frozen
class ProxyHeader:
    """A header: who connected (``source``) to what (``destination``); both None when it does not say.

    ``length`` is how many bytes it has. ``local`` marks a connection of the balancer's own, as for a check of health.
    """

    source: Address | None
    destination: Address | None
    length: int
    local: bool = False


def write_v1(source: Address, destination: Address) -> bytes:
    """The line of version 1. Unix sockets cannot be told: such a client is UNKNOWN."""
    family, one, other = _common(source, destination)
    if isinstance(one, str) or isinstance(other, str):
        return b"PROXY UNKNOWN\r\n"
    name = "TCP4" if family == _TCP4 else "TCP6"
    return f"PROXY {name} {one[0]} {other[0]} {one[1]} {other[1]}\r\n".encode("ascii")


def write_v2(source: Address, destination: Address) -> bytes:
    """The header of version 2. Addresses of kinds that do not fit together are left out."""
    family, one, other = _common(source, destination)
    if isinstance(one, str) or isinstance(other, str):
        addresses = b"".join(_path(path) for path in (one, other) if isinstance(path, str)) if family == _UNIX else b""
    else:
        addresses = _packed(one[0]) + _packed(other[0]) + _PORTS.pack(one[1], other[1])
    return _V2_FIXED.pack(_V2_START, _PROXY, family, len(addresses)) + addresses


def write_own(version: int) -> bytes:
    """The header, of version 1 or 2, for a connection of the balancer's own, as to check a node's health."""
    return b"PROXY UNKNOWN\r\n" if version == 1 else _V2_FIXED.pack(_V2_START, _LOCAL, _UNSPEC, 0)


def read(buffer: bytes) -> ProxyHeader | None:
    """The header, of either version, at the start of ``buffer``; None while it may become one. Raises HeaderError."""
    if buffer.startswith(_V1_START):
        return _read_v1(buffer)
    if buffer.startswith(_V2_START):
        return _read_v2(buffer)
    if _V1_START.startswith(buffer) or _V2_START.startswith(buffer):
        return None
    raise HeaderError(f"expected a PROXY header before anything else, found {_shown(buffer)}", Fault.MISSING)


# Version 1


def _read_v1(buffer: bytes) -> ProxyHeader | None:
    end = buffer.find(b"\n", 0, LONGEST_V1)
    if end < 0:
        if len(buffer) >= LONGEST_V1:
            raise HeaderError(
                f"expected a PROXY line of at most {LONGEST_V1} bytes, found {_shown(buffer)}", Fault.TOO_LONG
            )
        return None
    line = buffer[: end + 1]
    words = line.removesuffix(b"\r\n").split(b" ")
    if not line.endswith(b"\r\n"):
        raise HeaderError(
            f"expected a PROXY line that ends with a carriage return and a line feed, found {_shown(line)}"
        )
    if words[1] == b"UNKNOWN":
        return ProxyHeader(None, None, len(line))
    try:
        family = {b"TCP4": _TCP4, b"TCP6": _TCP6}[words[1]]
        _, _, one, other, one_port, other_port = words
        source = _numeric(one, family), _port(one_port)
        destination = _numeric(other, family), _port(other_port)
    except (ValueError, KeyError):
        raise HeaderError(
            f"expected PROXY with TCP4 or TCP6, two such addresses and two ports, found {_shown(line)}"
        ) from None
    return ProxyHeader(_credible(source), destination, len(line))


def _numeric(text: bytes, family: int) -> str:
    host = text.decode("ascii")
    if "%" in host:
        raise ValueError(host)
    return str(ipaddress.IPv4Address(host) if family == _TCP4 else ipaddress.IPv6Address(host))


def _port(text: bytes) -> int:
    port = int(text) if text.isdigit() and len(text) <= 5 else -1
    if not 0 <= port <= 0xFFFF or str(port).encode() != text:
        raise ValueError(text)
    return port


# Version 2


def _read_v2(buffer: bytes) -> ProxyHeader | None:
    if len(buffer) < _V2_FIXED.size:
        if len(buffer) > len(_V2_START):
            _check_command(buffer[len(_V2_START)])
        return None
    _, command, family, size = _V2_FIXED.unpack_from(buffer)
    _check_command(command)
    length = _V2_FIXED.size + size
    if length > LONGEST:
        raise HeaderError(f"expected a PROXY header of at most {LONGEST} bytes, found one of {length}", Fault.TOO_LONG)
    if command == _LOCAL:
        return ProxyHeader(None, None, length, local=True) if len(buffer) >= length else None
    if family not in _SIZES:
        raise HeaderError(f"expected a PROXY header for a stream (family 0x11, 0x21, 0x31 or 0), found 0x{family:02x}")
    if size < _SIZES[family]:
        raise HeaderError(f"expected {_SIZES[family]} bytes of addresses in the PROXY header, found room for {size}")
    if len(buffer) < length:
        return None
    start = _V2_FIXED.size
    source, destination = _addresses(buffer[start : start + _SIZES[family]], family)
    if family != _UNSPEC:  # what follows is the sender's own, then
        _check_additions(buffer[:length], start + _SIZES[family])
    return ProxyHeader(source, destination, length)


def _check_command(command: int) -> None:
    if command not in (_LOCAL, _PROXY):
        raise HeaderError(f"expected a PROXY header of version 2 with command 0 or 1, found 0x{command:02x}")


def _addresses(packed: bytes, family: int) -> tuple[Address | None, Address | None]:
    if family == _UNSPEC:
        return None, None
    if family == _UNIX:
        one, other = packed[:_UNIX_PATH], packed[_UNIX_PATH:]
        return tuple(path.partition(b"\0")[0].decode("utf-8", "surrogateescape") for path in (one, other))  # type: ignore[return-value]
    half = (len(packed) - _PORTS.size) // 2
    ports = _PORTS.unpack_from(packed, 2 * half)
    hosts = [str(ipaddress.ip_address(part)) for part in (packed[:half], packed[half : 2 * half])]
    return _credible((hosts[0], ports[0])), (hosts[1], ports[1])


def _check_additions(header: bytes, start: int) -> None:
    """Whether what follows the addresses is made of whole parts, and the checksum right where there is one."""
    while start < len(header):
        if len(header) - start < _TLV.size:
            raise HeaderError("expected whole additions in the PROXY header, found a piece of one at its end")
        kind, size = _TLV.unpack_from(header, start)
        start += _TLV.size
        if start + size > len(header):
            raise HeaderError(f"expected the PROXY header's addition 0x{kind:02x} within it, found it to end outside")
        if kind == _CHECKSUM:
            blank = header[:start] + bytes(size) + header[start + size :]
            if header[start : start + size] != crc32c(blank).to_bytes(4):
                raise HeaderError("expected a PROXY header whose checksum is right, found another")
        start += size


def crc32c(data: bytes) -> int:
    """The checksum that a header may carry: CRC-32 with Castagnoli's polynomial."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0x82F63B78 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


# Addresses


def _credible(source: tuple[str, int]) -> tuple[str, int]:
    address = ipaddress.ip_address(source[0])
    inner = getattr(address, "ipv4_mapped", None) or address
    if inner.is_multicast or inner.is_unspecified or str(inner) == "255.255.255.255":
        raise HeaderError(
            f"expected a client's address in the PROXY header, found {source[0]}, where nobody can be", Fault.IMPOSSIBLE
        )
    return source


def _common(source: Address, destination: Address) -> tuple[int, Address, Address]:
    """The family in which both can be told, and both in it."""
    if isinstance(source, str) or isinstance(destination, str):
        both = isinstance(source, str) and isinstance(destination, str)
        return (_UNIX if both else _UNSPEC), source, destination
    one, other = _plain(source[0]), _plain(destination[0])
    if ":" in one or ":" in other:
        one, other = (host if ":" in host else f"::ffff:{host}" for host in (one, other))
        return _TCP6, (one, source[1]), (other, destination[1])
    return _TCP4, (one, source[1]), (other, destination[1])


def _plain(host: str) -> str:
    """Without a zone, and an IPv4 address as one also when a socket of both kinds calls it by an IPv6 address."""
    if ":" not in host:
        return host
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed if ":" in host else bytes(map(int, host.split(".")))


def _path(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")[:_UNIX_PATH].ljust(_UNIX_PATH, b"\0")


def _shown(found: bytes) -> str:
    return repr(found[:_SHOWN])[1:] + ("..." if len(found) > _SHOWN else "")
