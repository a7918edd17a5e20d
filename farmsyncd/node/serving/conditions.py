"""What a conditional request or one for a range gets: RFC 9110, sections 13 and 14, as a plain function."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import attrs

_RANGE = re.compile(rb"(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@attrs.frozen
class Verdict:
    """How to answer: a status of 200, 206, 304, 412 or 416, and the bytes ``start`` to ``stop`` of the file."""

    code: int
    start: int
    stop: int


Headers = Callable[[bytes], bytes | None]


def judge(headers: Headers, *, etag: bytes, modified_s: int, size: int) -> Verdict:
    """The answer to a GET or HEAD with these request headers (``headers(b"range")``), for a file that exists.

    ``etag`` is strong, with its quotes; ``modified_s`` is in seconds since the Unix epoch.
    """
    whole = Verdict(200, 0, size)
    match = headers(b"if-match")
    if match is not None:
        if not _matches(match, etag, weakly=False):
            return Verdict(412, 0, 0)
    elif _since(headers(b"if-unmodified-since"), modified_s) is False:
        return Verdict(412, 0, 0)
    none_match = headers(b"if-none-match")
    if none_match is not None:
        if _matches(none_match, etag, weakly=True):
            return Verdict(304, 0, 0)
    elif _since(headers(b"if-modified-since"), modified_s) is True:
        return Verdict(304, 0, 0)
    asked = headers(b"range")
    if asked is None or not _range_applies(headers(b"if-range"), etag, modified_s):
        return whole
    return _range(asked, size) or whole


def _matches(field: bytes, etag: bytes, *, weakly: bool) -> bool:
    if field.strip() == b"*":
        return True
    return any(tag == etag and (weakly or not weak) for weak, tag in _TAG.findall(field))


def _since(field: bytes | None, modified_s: int) -> bool | None:
    """Whether the file is unchanged since the date in ``field``; None when that holds no date."""
    date = _date(field)
    return None if date is None else modified_s <= date


def _date(field: bytes | None) -> int | None:
    if field is None:
        return None
    try:
        return int(parsedate_to_datetime(field.decode("latin-1")).timestamp())
    except (ValueError, OverflowError):
        return None


def _range_applies(field: bytes | None, etag: bytes, modified_s: int) -> bool:
    if field is None:
        return True
    if field.lstrip().startswith((b'"', b"W/")):
        return field.strip() == etag
    return _date(field) == modified_s


def _range(field: bytes, size: int) -> Verdict | None:
    """The answer to a Range; None when it is to be ignored: not bytes, not understood, or more than one range."""
    unit, equals, wanted = field.partition(b"=")
    found = _RANGE.fullmatch(wanted.strip())
    if unit.strip().lower() != b"bytes" or not equals or found is None:
        return None
    if found[3] is not None:
        length = int(found[3])
        if length == 0 or size == 0:
            return Verdict(416, 0, 0)
        return Verdict(206, max(0, size - length), size)
    start = int(found[1])
    stop = int(found[2]) + 1 if found[2] else size
    if stop <= start and found[2]:
        return None
    if start >= size:
        return Verdict(416, 0, 0)
    return Verdict(206, start, min(stop, size))
