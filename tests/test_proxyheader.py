from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import proxyheader
from farmsyncd.core.proxyheader import (
    LONGEST,
    LONGEST_V1,
    Address,
    Fault,
    HeaderError,
    ProxyHeader,
    crc32c,
    read,
    write_own,
    write_v1,
    write_v2,
)
from farmsyncd.errors import PeerError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 65535)


def credible(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return (
        mapped is None and not address.is_multicast and not address.is_unspecified and str(address) != "255.255.255.255"
    )


def hosts(version: int) -> st.SearchStrategy[str]:
    return st.ip_addresses(v=version).filter(credible).map(str)  # type: ignore[arg-type]


PAIRS = st.one_of(*[st.tuples(st.tuples(hosts(v), PORTS), st.tuples(hosts(v), PORTS)) for v in (4, 6)])
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=25).map(lambda name: f"/{name}")


def v2(family: int, body: bytes, command: int = 0x21, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def tcp4(source: str = "192.0.2.7", more: bytes = b"") -> bytes:
    return v2(0x11, socket.inet_aton(source) + socket.inet_aton("10.0.0.1") + struct.pack("!HH", 4321, 80) + more)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


@given(PAIRS, st.sampled_from([write_v1, write_v2]), st.binary(max_size=40))
def test_what_is_written_is_read_and_not_a_byte_more(pair: tuple[Address, Address], write: object, rest: bytes) -> None:
    header: bytes = write(*pair)  # type: ignore[operator]
    assert read(header + rest) == ProxyHeader(*pair, len(header))
    assert [read(header[:end]) for end in range(len(header))] == [None] * len(header)
    assert len(header) <= (LONGEST_V1 if write is write_v1 else LONGEST)


@given(PATHS, PATHS)
def test_unix_paths_are_told_by_version_2_alone(source: str, destination: str) -> None:
    header = write_v2(source, destination)
    assert read(header) == ProxyHeader(source, destination, len(header))
    assert write_v1(source, destination) == b"PROXY UNKNOWN\r\n"


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        (("192.0.2.7", 4321), ("10.0.0.1", 80), b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\r\n"),
        (("2001:db8::7", 4321), ("2001:db8::1", 80), b"PROXY TCP6 2001:db8::7 2001:db8::1 4321 80\r\n"),
        (("::ffff:192.0.2.7", 4321), ("::ffff:10.0.0.1", 80), b"PROXY TCP4 192.0.2.7 10.0.0.1 4321 80\r\n"),
        (("fe80::7%eth0", 4321), ("fe80::1%eth0", 80), b"PROXY TCP6 fe80::7 fe80::1 4321 80\r\n"),
        (("2001:db8::7", 4321), ("10.0.0.1", 80), b"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 4321 80\r\n"),
        (("192.0.2.7", 4321), "/run/lb", b"PROXY UNKNOWN\r\n"),
        ("", ("10.0.0.1", 80), b"PROXY UNKNOWN\r\n"),
    ],
)
def test_version_1_says_it_in_one_line(source: Address, destination: Address, line: bytes) -> None:
    assert write_v1(source, destination) == line
    again = read(write_v2(source, destination))
    assert again is not None
    if line != b"PROXY UNKNOWN\r\n":
        seen = read(line)
        assert seen is not None
        assert (again.source, again.destination) == (seen.source, seen.destination)
    else:
        assert (again.source, again.destination) == (None, None)


def test_version_2_is_laid_out_as_the_protocol_says() -> None:
    assert write_v2(("192.0.2.7", 4321), ("10.0.0.1", 80)) == tcp4()
    assert write_v2("/a", "/b") == v2(0x31, b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"))


def test_the_longest_line_of_version_1_is_within_its_limit() -> None:
    longest = ":".join(["ffff"] * 8)
    line = f"PROXY UNKNOWN {longest} {longest} 65535 65535\r\n".encode()
    assert len(line) == LONGEST_V1
    assert read(line) == ProxyHeader(None, None, LONGEST_V1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_connection_of_the_balancers_own_tells_nothing_of_a_client(version: int) -> None:
    header = write_own(version)
    found = read(header + b"GET /")
    assert found == ProxyHeader(None, None, len(header), local=version == 2)


def test_a_local_header_is_read_over_whatever_it_says() -> None:
    header = v2(0x77, b"whatever", command=0x20)
    assert read(header) == ProxyHeader(None, None, len(header), local=True)
    assert read(header[:-1]) is None


def test_a_header_for_no_known_family_tells_nothing_and_is_read_over() -> None:
    header = v2(0x00, b"\1\2\3")
    assert read(header) == ProxyHeader(None, None, len(header))


def test_additions_are_read_over() -> None:
    header = tcp4(more=tlv(0x02, b"shop.example") + tlv(0x04, bytes(7)) + tlv(0x20, b"\1" + bytes(4)))
    found = read(header)
    assert found == ProxyHeader(("192.0.2.7", 4321), ("10.0.0.1", 80), len(header))


def test_a_checksum_has_to_be_right() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    blank = tcp4(more=tlv(0x02, b"shop") + tlv(0x03, bytes(4)))
    right = blank[:-4] + crc32c(blank).to_bytes(4)
    assert read(right) is not None
    with pytest.raises(PeerError, match="checksum"):
        read(right.replace(b"shop", b"shoq"))
    with pytest.raises(PeerError, match="checksum"):
        read(tcp4(more=tlv(0x03, b"\1\2\3")))


@pytest.mark.parametrize(
    "lie",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXX",
        b"\r\n\r\nGET",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
        b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\0 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 \xd9\xa1.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 fe80::7%eth0 fe80::1 1 2\r\n",
        b"PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 0.0.0.0 10.0.0.1 1 2\r\n",
        b"PROXY TCP4 255.255.255.255 10.0.0.1 1 2\r\n",
        b"PROXY TCP6 ff02::1 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 ::ffff:224.0.0.1 2001:db8::1 1 2\r\n",
        b"PROXY " + b"x" * LONGEST_V1,
        b"PROXY UNKNOWN " + b"x" * (LONGEST_V1 - 15) + b"\r\n",
        v2(0x11, bytes(12), command=0x11),
        v2(0x11, bytes(12), command=0x22),
        SIGNATURE + b"\x31",
        v2(0x11, bytes(11)),
        v2(0x21, bytes(35)),
        v2(0x31, bytes(215)),
        v2(0x12, bytes(12)),
        v2(0x41, bytes(12)),
        v2(0x11, b"", size=0xFFFF),
        v2(0x11, b"", command=0x20, size=0xFFFF),
        v2(0x11, b"", size=LONGEST - 15),
        tcp4("224.0.0.1"),
        tcp4("0.0.0.0"),
        tcp4(more=b"\1"),
        tcp4(more=b"\1\0"),
        tcp4(more=struct.pack("!BH", 2, 5) + b"abcd"),
        tcp4(more=tlv(0x02, b"a") + b"\0"),
    ],
)
def test_what_is_no_header_is_refused(lie: bytes) -> None:
    with pytest.raises(PeerError, match="expected"):
        read(lie)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", SIGNATURE, tcp4()[:14]]),
)
def test_garbage_is_refused_or_waited_out_never_anything_else(garbage: bytes, start: bytes) -> None:
    fault, found = "", None
    try:
        found = read(start + garbage)
    except PeerError as error:
        fault = str(error)
    assert fault.isprintable()
    assert found is None or found.length <= len(start + garbage)


@given(st.binary(max_size=60), PAIRS)
def test_what_was_refused_stays_refused_whatever_follows(more: bytes, pair: tuple[Address, Address]) -> None:
    for header in (write_v1(*pair), write_v2(*pair)):
        for position in range(0, len(header), 5):
            spoilt = header[:position] + bytes([header[position] ^ 0x80]) + header[position + 1 :]
            try:
                read(spoilt)
            except PeerError:
                with pytest.raises(PeerError):
                    read(spoilt + more)


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (b"GET / HTTP/1.1\r\n", Fault.MISSING),
        (b"PROXY " + b"x" * LONGEST_V1, Fault.TOO_LONG),
        (v2(0x11, b"", size=0xFFFF), Fault.TOO_LONG),
        (b"PROXY TCP4 224.0.0.1 10.0.0.1 1 2\r\n", Fault.IMPOSSIBLE),
        (tcp4("0.0.0.0"), Fault.IMPOSSIBLE),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n", Fault.MALFORMED),
        (v2(0x12, bytes(12)), Fault.MALFORMED),
    ],
)
def test_what_is_wrong_with_a_header_has_a_name(lie: bytes, fault: Fault) -> None:
    with pytest.raises(HeaderError) as raised:
        read(lie)
    assert raised.value.fault is fault


def test_waiting_for_a_header_ends_within_its_limit() -> None:
    assert read(b"PROXY UNKNOWN " + b"x" * (LONGEST_V1 - 15)) is None
    with pytest.raises(PeerError, match="at most"):
        read(b"PROXY UNKNOWN " + b"x" * (LONGEST_V1 - 14))
    assert proxyheader.read(v2(0x11, b"", size=LONGEST - 16)) is None
