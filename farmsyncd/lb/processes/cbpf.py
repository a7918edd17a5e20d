"""Which worker a source belongs to: one rule, told twice. The kernel runs it as a classic BPF program on the first
packet of each connection, and picks the listening socket by it; here it is for those who look for a source's worker.

The words of an address (one for IPv4, four for IPv6), masked to the prefix that makes a source, are mixed by
multiplying with odd numbers, and folding the upper half into the lower one in between; what comes out, modulo the
number of workers, is the worker.
"""

from __future__ import annotations

import ctypes
import socket
import struct

import attrs

_MIX = 0x9E3779B1  # 2**32 divided by the golden ratio: neighbouring addresses end up far from each other
_FINISH = 0x85EBCA6B
_WORD = 0xFFFFFFFF
_FOLD = 16

_SO_ATTACH_REUSEPORT_CBPF = 51
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets count from the network header, whatever was pulled from the packet
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8

# linux/bpf_common.h and linux/filter.h
_LOAD_WORD, _LOAD_BYTE = 0x20, 0x30
_AND, _MULTIPLY, _SHIFT_RIGHT, _MODULO, _XOR_X = 0x54, 0x24, 0x74, 0x94, 0xAC
_JUMP_IF_EQUAL, _RETURN_A, _A_TO_X = 0x15, 0x16, 0x07


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@attrs.frozen
class Spread:
    """How sources are spread over ``workers``; the prefixes are those that make a source."""

    workers: int
    prefix4: int = 32
    prefix6: int = 64

    def worker_of(self, source: bytes) -> int:
        """The worker of a source: 4 bytes for IPv4, 16 for IPv6; anything else belongs to the first."""
        mixed = 0
        for (word,), mask in zip(struct.iter_unpack("!I", _whole(source)), self._masks(len(source)), strict=True):
            mixed = ((mixed ^ (word & mask)) * _MIX) & _WORD
        mixed = ((mixed ^ (mixed >> _FOLD)) * _FINISH) & _WORD
        return (mixed >> _FOLD) % self.workers

    def attach(self, group: socket.socket) -> None:
        """Have the kernel spread new connections so over the sockets of the group that ``group`` is in. Raises OSError.

        In place of the former program of the group, if there is one. The sockets count in the order in which they
        began to listen.
        """
        code = self.program()
        program = _Program(len(code) // 8, code)
        group.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, bytes(program))

    def program(self) -> bytes:
        """The instructions, as an array of ``struct sock_filter``."""
        ipv4 = [*self._mixed_in(_IPV4_SOURCE, self._masks(4)), *self._result()]
        ipv6 = [*self._mixed_in(_IPV6_SOURCE, self._masks(16)), *self._result()]
        version = [
            _instruction(_LOAD_BYTE, _NETWORK_HEADER),
            _instruction(_SHIFT_RIGHT, 4),
            _instruction(_JUMP_IF_EQUAL, 6, no=len(ipv6)),
        ]
        return b"".join([*version, *ipv6, *ipv4])

    def _mixed_in(self, offset: int, masks: list[int]) -> list[bytes]:
        """The steps of :meth:`worker_of`; X, which begins as 0, is what was mixed so far."""
        steps = []
        for number, mask in enumerate(masks):
            steps += [
                _instruction(_LOAD_WORD, _NETWORK_HEADER + offset + 4 * number),
                _instruction(_AND, mask),
                _instruction(_XOR_X),
                _instruction(_MULTIPLY, _MIX),
                _instruction(_A_TO_X),
            ]
        return steps

    def _result(self) -> list[bytes]:
        return [  # X is what was mixed
            _instruction(_SHIFT_RIGHT, _FOLD),
            _instruction(_XOR_X),
            _instruction(_MULTIPLY, _FINISH),
            _instruction(_SHIFT_RIGHT, _FOLD),
            _instruction(_MODULO, self.workers),
            _instruction(_RETURN_A),
        ]

    def _masks(self, length: int) -> list[int]:
        """One mask for each word of a source of so many bytes."""
        if length not in {4, 16}:
            return []
        bits = 8 * length
        prefix = self.prefix4 if length == 4 else self.prefix6
        whole = ((1 << prefix) - 1) << (bits - prefix)
        return [(whole >> shift) & _WORD for shift in range(bits - 32, -1, -32)]


def _whole(source: bytes) -> bytes:
    return source if len(source) in {4, 16} else b""


def _instruction(code: int, k: int = 0, *, no: int = 0) -> bytes:
    """One ``struct sock_filter``; ``no`` is how many are skipped when a comparison fails."""
    return struct.pack("=HBBI", code, 0, no, k & _WORD)
