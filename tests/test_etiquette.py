"""The rules of the greeting, without a connection."""

from __future__ import annotations

import pytest

from farmsyncd.core.etiquette import Etiquette
from farmsyncd.core.messages import MessageError, Side
from farmsyncd.core.messages.clock import Time
from farmsyncd.core.strangers import http_answer
from farmsyncd.core.wire import Frame


@pytest.mark.parametrize("verb", ["PING 1", "STATUS", "PROBE 5", "HISTORY shop", "PONG 1", "CANCEL shop"])
def test_nothing_of_weight_is_said_before_hello(verb: str) -> None:
    name, *words = verb.split()
    with pytest.raises(MessageError, match=f"expected HELLO before {name}"):
        Etiquette(Side.CLIENT, expected=True).read(Frame(name, tuple(words)))


@pytest.mark.parametrize("line", ["TIME", "SCHEDULE shop", "DATASETS"])
def test_people_may_ask_without_a_greeting(line: str) -> None:
    name, *words = line.split()
    etiquette = Etiquette(Side.CLIENT, expected=True)
    assert etiquette.awaits_answer(etiquette.read(Frame(name, tuple(words))))
    assert etiquette.peer is None


def test_a_hello_is_remembered_and_said_once() -> None:
    etiquette = Etiquette(Side.CLIENT, expected=True)
    hello = etiquette.read(Frame("HELLO", ("1", "node", "web-1", "serve=h:80")))
    assert etiquette.peer is hello
    with pytest.raises(MessageError, match="second"):
        etiquette.read(Frame("HELLO", ("1", "node", "web-1")))


@pytest.mark.parametrize("words", [("2", "node", "web-1"), ("2",), ("0", "anything at all", "+x", "y"), ("v1",)])
def test_another_version_is_told_which_one_is_spoken_here_whatever_else_it_says(words: tuple[str, ...]) -> None:
    with pytest.raises(MessageError, match=f"version 1 of the farmsync protocol, and the peer speaks {words[0]}"):
        Etiquette(Side.CLIENT, expected=True).read(Frame("HELLO", words))


def test_each_side_has_its_roles() -> None:
    with pytest.raises(MessageError, match="data"):
        Etiquette(Side.CLIENT, expected=True).read(Frame("HELLO", ("1", "data", "x")))
    with pytest.raises(MessageError, match="node"):
        Etiquette(Side.SERVER, expected=True).read(Frame("HELLO", ("1", "node", "x")))


def test_a_client_that_does_not_greet_needs_no_greeting() -> None:
    answer = Etiquette(Side.SERVER, expected=False).read(Frame("DATASETS-ARE", ("shop",)))
    assert answer.VERB == "DATASETS-ARE"


def test_only_those_who_ask_are_owed_answers() -> None:
    etiquette = Etiquette(Side.CLIENT, expected=True)
    etiquette.read(Frame("HELLO", ("1", "node", "web-1")))
    assert not etiquette.awaits_answer(Time())


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_web_client_gets_an_answer_that_it_can_show(method: str) -> None:
    answer = http_answer(Frame(method, ("/", "HTTP/1.1")))
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"farmsync" in body
    assert body.count(b"\n") == 1


def test_what_is_no_http_is_not_answered_as_if() -> None:
    assert http_answer(Frame("GET", ("/",))) is None
    assert http_answer(Frame("GET")) is None
    assert http_answer(Frame("HELLO", ("1", "node", "HTTP/1.1"))) is None
