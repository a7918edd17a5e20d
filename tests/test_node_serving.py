"""Which file a URL names, what a conditional request gets, and what a client reads from the node's HTTP side."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from farmsyncd.core.chunks import digest_of
from farmsyncd.core.snapshot import Entry, Kind, Manifest
from farmsyncd.edges.httpside import HttpSide
from farmsyncd.node.serving.conditions import Verdict, judge
from farmsyncd.node.serving.lookup import Asked, Moved, Tree, content_type, etag, read_url
from farmsyncd.node.serving.web import ServingResource

MTIME_S = 1_700_000_000
VERSION = "0123456789abcdef" * 2 + "01234567"


def file(path: bytes, content: bytes, *more: bytes) -> Entry:
    pieces = [piece for piece in (content, *more) if piece]
    return Entry(
        path,
        Kind.FILE,
        mtime_ns=MTIME_S * 10**9 + 5,
        size=sum(map(len, pieces)),
        chunks=tuple(map(digest_of, pieces)),
        lengths=tuple(map(len, pieces)),
    )


def tree(*entries: Entry) -> Tree:
    return Tree(Manifest.of(entries))


SHOP = tree(
    Entry(b"img", Kind.DIR),
    Entry(b"empty", Kind.DIR),
    file(b"index.html", b"front"),
    file(b"img/logo.png", b"png"),
    file(b"img/index.html", b"images"),
    file("Äpfel & Birnen.txt".encode(), b"fruit"),
    file(b"\xff\xfe", b"bytes"),
    Entry(b"pictures", Kind.LINK, target=b"img"),
    Entry(b"img/front", Kind.LINK, target=b"../index.html"),
    Entry(b"loop", Kind.LINK, target=b"loop"),
    Entry(b"lost", Kind.LINK, target=b"nowhere"),
)

FILES = [b"index.html", b"img/logo.png", b"img/index.html", "Äpfel & Birnen.txt".encode(), b"\xff\xfe"]


def find(url: bytes) -> bytes | None:
    asked = read_url(url)
    found = SHOP.find(asked) if asked is not None else None
    if isinstance(found, Moved):
        return b"moved"
    return found.path if found is not None else None


def test_urls_name_datasets_versions_and_paths() -> None:
    assert read_url(b"/shop/a/b") == Asked("shop", None, b"a/b")
    assert read_url(b"/shop@" + VERSION.encode() + b"/a%20b") == Asked("shop", VERSION, b"a b")
    assert read_url(b"/shop") == Asked("shop", None, b"", within=False)
    assert read_url(b"/shop/%ff") == Asked("shop", None, b"\xff")


@pytest.mark.parametrize(
    "url",
    [b"", b"shop/a", b"/", b"//a", b"/shop@/a", b"/shop@12/a", b"/.hidden/a", b"/shop/../a", b"/shop/%2e%2e/a",
     b"/shop/a%2fb", b"/shop/a%00b", b"/shop/a%zz", b"/shop/%", b"*", b"/sh%2fop/a"],
)  # fmt: skip
def test_urls_that_name_nothing_or_try_to_leave_are_refused(url: bytes) -> None:
    assert read_url(url) is None


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/shop/index.html", b"index.html"),
        (b"/shop/", b"index.html"),
        (b"/shop", b"moved"),
        (b"/shop/img", b"moved"),
        (b"/shop/img/", b"img/index.html"),
        (b"/shop/pictures/logo.png", b"img/logo.png"),
        (b"/shop/pictures/front", b"index.html"),
        (b"/shop/%C3%84pfel%20&%20Birnen.txt", "Äpfel & Birnen.txt".encode()),
        (b"/shop/%ff%fe", b"\xff\xfe"),
        (b"/shop/empty/", None),
        (b"/shop/empty", None),
        (b"/shop/index.html/", None),
        (b"/shop/index.html/more", None),
        (b"/shop/img//logo.png", None),
        (b"/shop/loop", None),
        (b"/shop/lost", None),
        (b"/shop/lost/more", None),
        (b"/shop/nothing", None),
    ],
)
def test_paths_are_found_by_the_manifest_links_and_indexes_included(url: bytes, path: bytes | None) -> None:
    assert find(url) == path


@given(st.binary(max_size=40))
def test_no_url_whatever_finds_anything_but_files_of_the_manifest(rest: bytes) -> None:
    found = find(b"/shop/" + rest)
    assert found in {None, b"moved", *FILES}


def test_types_come_from_names_and_do_not_depend_on_the_machine() -> None:
    assert content_type(b"a/b.html") == b"text/html; charset=utf-8"
    assert content_type(b"prices.json") == b"application/json; charset=utf-8"
    assert content_type(b"logo.PNG") == b"image/png"
    assert content_type(b"data.tar.gz") == b"application/gzip"
    assert content_type(b"no-suffix") == b"application/octet-stream"
    assert content_type(b"\xff.css") == b"text/css; charset=utf-8"


def test_validators_are_equal_for_equal_contents_only() -> None:
    assert etag(file(b"a", b"1", b"2")) == etag(file(b"b", b"1", b"2"))
    tags = {etag(file(b"a", *pieces)) for pieces in [(b"1",), (b"2",), (b"1", b"2"), (b"2", b"1"), (b"",)]}
    assert len(tags) == 5


TAG = b'"abc"'
LATER, SAME, EARLIER = (formatdate(MTIME_S + more, usegmt=True).encode() for more in (60, 0, -60))


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, Verdict(200, 0, 100)),
        ({b"if-none-match": TAG}, Verdict(304, 0, 0)),
        ({b"if-none-match": b'"x", W/"abc"'}, Verdict(304, 0, 0)),
        ({b"if-none-match": b"*"}, Verdict(304, 0, 0)),
        ({b"if-none-match": b'"x"'}, Verdict(200, 0, 100)),
        ({b"if-none-match": b'"x"', b"if-modified-since": LATER}, Verdict(200, 0, 100)),
        ({b"if-modified-since": SAME}, Verdict(304, 0, 0)),
        ({b"if-modified-since": EARLIER}, Verdict(200, 0, 100)),
        ({b"if-modified-since": b"yesterday"}, Verdict(200, 0, 100)),
        ({b"if-match": b'"x"'}, Verdict(412, 0, 0)),
        ({b"if-match": b'W/"abc"'}, Verdict(412, 0, 0)),
        ({b"if-match": TAG}, Verdict(200, 0, 100)),
        ({b"if-unmodified-since": EARLIER}, Verdict(412, 0, 0)),
        ({b"range": b"bytes=0-9"}, Verdict(206, 0, 10)),
        ({b"range": b"bytes=90-"}, Verdict(206, 90, 100)),
        ({b"range": b"bytes=90-200"}, Verdict(206, 90, 100)),
        ({b"range": b"bytes=-10"}, Verdict(206, 90, 100)),
        ({b"range": b"bytes=-500"}, Verdict(206, 0, 100)),
        ({b"range": b"bytes=100-"}, Verdict(416, 0, 0)),
        ({b"range": b"bytes=-0"}, Verdict(416, 0, 0)),
        ({b"range": b"bytes=9-0"}, Verdict(200, 0, 100)),
        ({b"range": b"bytes=0-1,5-6"}, Verdict(200, 0, 100)),
        ({b"range": b"lines=0-1"}, Verdict(200, 0, 100)),
        ({b"range": b"bytes=0-9", b"if-range": TAG}, Verdict(206, 0, 10)),
        ({b"range": b"bytes=0-9", b"if-range": b'"x"'}, Verdict(200, 0, 100)),
        ({b"range": b"bytes=0-9", b"if-range": b'W/"abc"'}, Verdict(200, 0, 100)),
        ({b"range": b"bytes=0-9", b"if-range": SAME}, Verdict(206, 0, 10)),
        ({b"range": b"bytes=0-9", b"if-range": LATER}, Verdict(200, 0, 100)),
        ({b"range": b"bytes=0-9", b"if-none-match": TAG}, Verdict(304, 0, 0)),
    ],
)
def test_conditions_and_ranges(headers: dict[bytes, bytes], verdict: Verdict) -> None:
    assert judge(headers.get, etag=TAG, modified_s=MTIME_S, size=100) == verdict


class FakeShelf:
    """One dataset whose versions the test puts on a real disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active: str | None = None
        self.trees: dict[str, Tree] = {}

    def put(self, files: dict[str, bytes]) -> str:
        parents = {name.rpartition("/")[0] for name in files} - {""}
        directories = [Entry(os.fsencode(parent), Kind.DIR) for parent in parents]
        manifest = Manifest.of([*directories, *(file(os.fsencode(name), files[name]) for name in files)])
        for name, content in files.items():
            path = self.root / manifest.version / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.trees[manifest.version] = Tree(manifest)
        return manifest.version

    def current(self) -> str | None:
        return self.active

    def tree(self, version: str) -> Tree | None:
        return self.trees.get(version)

    def path(self, version: str) -> Path:
        return self.root / version

    def shelf(self, dataset: str) -> FakeShelf | None:
        return self if dataset == "shop" else None

    def follows(self, dataset: str) -> bool:
        return dataset in {"shop", "unreadable"}


class SlowTransport(StringTransport):
    """A connection that has enough after half a million bytes, until the client takes them."""

    room = 500_000

    def write(self, data: bytes) -> None:
        super().write(data)
        self.room -= len(data)
        if self.room < 0 and self.producer is not None:
            self.producer.pauseProducing()

    def take(self) -> bool:
        """The client takes all that has come; whether more may come."""
        self.room = 500_000
        if self.producer is not None:
            self.producer.resumeProducing()
        return self.producer is not None and not self.disconnecting


class Browser:
    """A client of the HTTP side, in memory."""

    def __init__(self, shelf: FakeShelf) -> None:
        side = HttpSide(dict, str, lambda: (True, "ready"), ServingResource(shelf))
        self._site = side.site(Clock())

    def start(self, path: str, *headers: str, method: str = "GET") -> SlowTransport:
        channel = self._site.buildProtocol(None)
        transport = SlowTransport()
        assert channel is not None
        channel.makeConnection(transport)
        lines = [f"{method} {path} HTTP/1.1", "Host: node", "Connection: close", *headers, "", ""]
        channel.dataReceived("\r\n".join(lines).encode())
        self._channel = channel
        return transport

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        transport = self.start(path, *headers, method=method)
        while transport.take():
            pass
        return self.read(transport)

    @staticmethod
    def read(transport: StringTransport) -> tuple[int, dict[str, str], bytes]:
        head, _, body = transport.value().partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in rest)
        return int(first.split()[1]), fields, body


@pytest.fixture
def shelf(tmp_path: Path) -> FakeShelf:
    return FakeShelf(tmp_path)


@pytest.fixture
def browser(shelf: FakeShelf) -> Browser:
    return Browser(shelf)


def test_a_file_is_answered_with_its_version_type_validators_and_length(shelf: FakeShelf, browser: Browser) -> None:
    shelf.active = shelf.put({"prices.json": b"{}"})
    code, headers, body = browser.get("/shop/prices.json?x=1")
    assert (code, body) == (200, b"{}")
    assert headers["x-farmsync-version"] == shelf.active
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["content-length"] == "2"
    assert headers["accept-ranges"] == "bytes"
    assert headers["last-modified"] == formatdate(MTIME_S, usegmt=True).lower()
    assert headers["cache-control"] == "no-cache"
    assert browser.get("/shop/prices.json", f"If-None-Match: {headers['etag']}")[0::2] == (304, b"")


def test_every_answer_of_a_dataset_names_the_version(shelf: FakeShelf, browser: Browser) -> None:
    shelf.active = shelf.put({"a/index.html": b"x" * 10})
    for path, more, expected in [
        ("/shop/a/", (), 200),
        ("/shop/none", (), 404),
        ("/shop/a", (), 301),
        ("/shop/a/index.html", ("Range: bytes=2-3",), 206),
        ("/shop/a/index.html", ("Range: bytes=20-",), 416),
        ("/shop/a/index.html", ('If-Match: "x"',), 412),
    ]:
        code, headers, _ = browser.get(path, *more)
        assert (code, headers["x-farmsync-version"]) == (expected, shelf.active)
    assert browser.get("/shop/a?b=c")[1]["location"] == "/shop/a/?b=c"
    assert browser.get("/shop/a/index.html", "Range: bytes=20-")[1]["content-range"] == "bytes */10"


def test_head_has_the_headers_of_get_and_no_body(shelf: FakeShelf, browser: Browser) -> None:
    shelf.active = shelf.put({"big": b"x" * 1_000_000, "small": b"y"})
    for path in ("/shop/big", "/shop/small", "/shop/none"):
        got, head = browser.get(path), browser.get(path, method="HEAD")
        assert head[0] == got[0]
        assert head[2] == b""
        assert {**head[1], "date": ""} == {**got[1], "date": ""}


def test_a_range_is_answered_with_those_bytes(shelf: FakeShelf, browser: Browser) -> None:
    content = bytes(range(256)) * 4000
    shelf.active = shelf.put({"big": content})
    code, headers, body = browser.get("/shop/big", "Range: bytes=1000-700999")
    assert (code, headers["content-range"]) == (206, f"bytes 1000-700999/{len(content)}")
    assert body == content[1000:701000]


def test_an_answer_that_began_before_a_flip_ends_with_the_version_it_began_with(
    shelf: FakeShelf, browser: Browser
) -> None:
    old = shelf.put({"big": b"o" * 1_000_000})
    new = shelf.put({"big": b"n" * 1_000_000})
    shelf.active = old
    transport = browser.start("/shop/big")
    shelf.active = new
    del shelf.trees[old]
    (shelf.root / old / "big").unlink()
    while transport.take():
        pass
    code, headers, body = browser.read(transport)
    assert (code, headers["x-farmsync-version"]) == (200, old)
    assert body == b"o" * 1_000_000
    assert browser.get("/shop/big")[2] == b"n" * 1_000_000


def test_any_version_on_the_disk_can_be_asked_for_by_name(shelf: FakeShelf, browser: Browser) -> None:
    old = shelf.put({"a.css": b"old"})
    shelf.active = shelf.put({"a.css": b"new"})
    code, headers, body = browser.get(f"/shop@{old}/a.css")
    assert (code, body, headers["x-farmsync-version"]) == (200, b"old", old)
    assert "immutable" in headers["cache-control"]
    assert browser.get(f"/shop@{'0' * 40}/a.css")[0] == 404


def test_a_big_file_goes_out_as_the_client_takes_it(shelf: FakeShelf, browser: Browser) -> None:
    shelf.active = shelf.put({"big": b"x" * 4_000_000})
    transport = browser.start("/shop/big")
    sent = len(transport.value())
    assert 500_000 < sent < 1_000_000
    assert transport.take()
    assert sent < len(transport.value()) < 2_000_000
    assert transport.producer is not None
    transport.producer.stopProducing()


def test_without_an_active_version_or_dataset_the_answer_says_so(shelf: FakeShelf, browser: Browser) -> None:
    assert browser.get("/shop/a")[0] == 503
    assert browser.get("/unreadable/a")[0] == 503
    code, _fields, said = browser.get("/other/a")
    assert (code, said) == (404, b"There is no such dataset on this node.\n")
    for url in ("/shop/../a", "/shop@12ab/a"):
        code, _fields, said = browser.get(url)
        assert code == 404
        assert said.startswith(b"Expected /DATASET/PATH or /DATASET@VERSION/PATH")
    assert browser.get("/shop/a", method="POST")[0] == 405


def test_a_file_that_is_shorter_than_it_should_be_is_never_sent_as_if_it_were_whole(
    shelf: FakeShelf, browser: Browser
) -> None:
    shelf.active = shelf.put({"big": b"x" * 1_000_000})
    os.truncate(shelf.root / shelf.active / "big", 400_000)
    transport = browser.start("/shop/big")
    assert transport.disconnecting or transport.disconnected
    assert len(browser.read(transport)[2]) == 400_000
