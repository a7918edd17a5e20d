"""What an authoritative server for one name answers: messages in, messages out, as bytes.

The zone is the farm's name alone. It has addresses (those of the nodes that take new clients), a SOA, and the name
servers that were configured. Below it is nothing; for all else somebody else has to be asked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import attrs
from twisted.names import dns

UDP_PLAIN = 512
"""So long may an answer over UDP be for whoever does not say more, in bytes."""
UDP_MOST = 1232
"""And so long for whoever does: this much fits through any network in one piece."""
TCP_MOST = 65535

_HEADER = struct.Struct("!HBB")
_HEADER_SIZE = 12
_QUERY, _RESPONSE = 0, 0x80
_OPT_SIZE = 11
_LONGEST_NAME = 253
_SIZES = {dns.A: 16, dns.AAAA: 28}
"""What an address takes in an answer, whose name is spelled in its question already."""
_BADVERS = 16
_DNSSEC_OK = 0x8000
_TRANSFERS = frozenset({dns.AXFR, dns.IXFR, dns.MAILA, dns.MAILB})
_RFC_8482 = b"RFC8482"

Addresses = Callable[[int], Sequence[str] | None]
"""The farm's addresses, IPv4 or IPv6 (4 or 6), the first choice first; None when the farm is not known at all."""


@attrs.frozen
class Zone:
    """Answers for ``name`` (lower case, without its final dot). ``servers`` are the name servers' names."""

    name: str
    servers: tuple[str, ...]
    ttl: int
    """For how many seconds an answer may be kept."""
    addresses: Addresses

    def answer(self, asked: bytes, most: int | None) -> bytes | None:
        """The answer to ``asked``; None when nothing is to be said.

        It has at most ``most`` bytes, or over UDP (None) as many as the question allows.
        """
        if len(asked) < _HEADER_SIZE:
            return None
        ident, flags, _ = _HEADER.unpack_from(asked)
        if flags & _RESPONSE:
            return None  # or two servers might answer each other for ever
        query = dns.Message()
        try:
            if flags >> 3 & 0xF == _QUERY:
                query.fromStr(asked)
        except Exception:  # the decoder raises whatever it stumbles over
            return _reply(ident, flags, dns.EFORMAT).toStr()
        query.opCode = flags >> 3 & 0xF
        return self._answer(ident, flags, query, most)

    def _answer(self, ident: int, flags: int, query: dns.Message, most: int | None) -> bytes:
        if query.opCode != _QUERY:
            return _reply(ident, flags, dns.ENOTIMP).toStr()
        options = [record for record in query.additional if record.type == dns.OPT]
        well_formed = len(query.queries) == 1 and len(options) <= 1 and not query.answers
        if not well_formed or not _is_name(query.queries[0].name.name):
            return _reply(ident, flags, dns.EFORMAT).toStr()
        reply = _reply(ident, flags, dns.OK)
        reply.queries = query.queries
        limit = _limit(options, most)
        if options and options[0].ttl >> 16 & 0xFF:
            reply.additional = [_option(options[0], _BADVERS)]
            return reply.toStr()
        self._fill(reply, query.queries[0], limit - (_OPT_SIZE if options else 0))
        if options:
            reply.additional = [_option(options[0])]
        return reply.toStr()

    def _fill(self, reply: dns.Message, question: dns.Query, limit: int) -> None:
        """Put into ``reply`` what belongs there, so that it has at most ``limit`` bytes."""
        name, zone = question.name.name.lower().removesuffix(b"."), self.name.encode("ascii")
        inside = name == zone or name.endswith(b"." + zone)
        if question.cls not in (dns.IN, dns.ANY) or question.type in _TRANSFERS or not inside:
            reply.rCode = dns.EREFUSED
            return
        reply.auth = True
        if name != zone:
            reply.rCode = dns.ENAME
        elif question.type in _SIZES:
            self._fill_addresses(reply, question, limit)
        else:
            reply.answers = [self._record(question, payload) for payload in self._others(question.type)]
        if reply.rCode in (dns.OK, dns.ENAME) and not reply.answers and not reply.trunc:
            owner = dns.Query(self.name, dns.SOA) if name != zone else question
            reply.authority = [self._record(owner, self._soa())]
        if len(reply.toStr()) > limit:
            reply.answers, reply.authority, reply.trunc = [], [], 1

    def _fill_addresses(self, reply: dns.Message, question: dns.Query, limit: int) -> None:
        addresses = self.addresses(4 if question.type == dns.A else 6)
        if addresses is None:  # that there is none would be kept, and be wrong a moment later
            reply.rCode, reply.auth = dns.ESERVER, False
            return
        room = (limit - len(reply.toStr())) // _SIZES[question.type]
        kind = dns.Record_A if question.type == dns.A else dns.Record_AAAA
        reply.answers = [self._record(question, kind(address, self.ttl)) for address in addresses[:room]]
        reply.trunc = int(len(addresses) > room)

    def _others(self, kind: int) -> list[dns.IEncodableRecord]:
        match kind:
            case dns.SOA:
                return [self._soa()]
            case dns.NS:
                return [dns.Record_NS(server, self.ttl) for server in self.servers]
            case dns.ALL_RECORDS:  # all that there is would serve those best who send it to others
                return [dns.Record_HINFO(_RFC_8482, b"", self.ttl)]
        return []

    def _soa(self) -> dns.Record_SOA:
        server = self.servers[0] if self.servers else self.name
        return dns.Record_SOA(
            server, f"hostmaster.{self.name}", 1, refresh=3600, retry=600, expire=86400, minimum=self.ttl, ttl=self.ttl
        )

    def _record(self, question: dns.Query, payload: dns.IEncodableRecord) -> dns.RRHeader:
        """A record of the zone's name, spelled as in the question."""
        return dns.RRHeader(question.name.name, payload.TYPE, dns.IN, self.ttl, payload, auth=True)


def _is_name(name: bytes) -> bool:
    """Whether it can be spelled again as it came."""
    return not name or (len(name) <= _LONGEST_NAME and all(0 < len(label) <= 63 for label in name.split(b".")))


def _reply(ident: int, flags: int, code: int) -> dns.Message:
    return dns.Message(ident, answer=1, opCode=flags >> 3 & 0xF, recDes=flags & 1, rCode=code, maxSize=0)


def _limit(options: Sequence[dns.RRHeader], most: int | None) -> int:
    if most is not None:
        return most
    return min(UDP_MOST, max(UDP_PLAIN, options[0].cls)) if options else UDP_PLAIN


def _option(asked: dns.RRHeader, code: int = dns.OK) -> dns.RRHeader:
    """What extends the answer, as ``asked`` extended the question: nothing of it is supported but its size."""
    extended = (code >> 4) << 24 | asked.ttl & _DNSSEC_OK
    record = dns.RRHeader(b"", dns.OPT, UDP_MOST, extended)
    record.payload = dns.UnknownRecord(b"")
    return record
