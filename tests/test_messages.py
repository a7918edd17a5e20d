"""Every verb: there and back, one spelling each, and errors that say what was expected."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmsyncd.core import ranges, words
from farmsyncd.core.messages import VERBS, Message, MessageError, Side, read
from farmsyncd.core.messages.content import GetChunks, Lack
from farmsyncd.core.messages.greeting import Hello
from farmsyncd.core.messages.operating import Answer
from farmsyncd.core.messages.schedule import DatasetsAre, Pins
from farmsyncd.core.wire import Frame, FrameParser, WireError, encode
from tests.message_examples import any_message, messages_of


@pytest.mark.parametrize("verb", VERBS)
def test_every_message_arrives_as_it_was_sent(verb: str) -> None:
    @given(messages_of(VERBS[verb]))
    def there_and_back(message: Message) -> None:
        (frame,) = FrameParser().feed(encode(message.frame()))
        assert read(frame, next(iter(message.SENT_BY))) == message

    there_and_back()


@given(st.lists(any_message(), max_size=4), st.integers(1, 40))
def test_messages_survive_any_chunking(messages: list[Message], step: int) -> None:
    stream = b"".join(encode(message.frame()) for message in messages)
    parser, got = FrameParser(), []
    for at in range(0, len(stream), step):
        got += [VERBS[frame.verb].from_frame(frame) for frame in parser.feed(stream[at : at + step])]
    assert got == messages


@pytest.mark.parametrize("verb", [GetChunks, Lack])
def test_the_numbers_of_chunks_travel_however_scattered_they_are(verb: type[GetChunks | Lack]) -> None:
    every_other = ranges.spell(range(0, 1_000_000, 2))
    (frame,) = FrameParser().feed(encode(verb("a" * 40, every_other).frame()))
    assert verb.from_frame(frame).ranges == every_other


@pytest.mark.parametrize("most", [DatasetsAre(("d" * 64,) * 1000), Pins("d" * 64, ("a" * 40,) * 1000)])
def test_as_many_names_as_there_may_be_fit_a_line(most: Message) -> None:
    (frame,) = FrameParser().feed(encode(most.frame()))
    assert type(most).from_frame(frame) == most


def test_how_thousands_of_nodes_stand_is_more_than_a_netstring_and_still_one_answer() -> None:
    answer = Answer.of("STATUS", b'{"nodes": 1}' * 2_000_000)
    (frame,) = FrameParser().feed(encode(answer.frame()))
    assert len(frame.payload) > 1
    assert Answer.from_frame(frame).json == answer.json == b'{"nodes": 1}' * 2_000_000
    assert Answer.of("STATUS", b"{}").pieces == (b"{}",)


WORDS = st.sampled_from(
    ["-", "%", "%2D", "%2B", "1", "-1", "01", "zstd", "raw", "node", "shop", "a" * 40, "b" * 64, "%zz", "x%41"]
)


@given(
    st.sampled_from([*VERBS, "NOTHING"]),
    st.lists(WORDS | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1), max_size=10),
    st.lists(st.binary(max_size=20), max_size=3),
    st.sampled_from(Side),
)
def test_any_frame_is_a_message_with_exactly_these_bytes_or_a_message_error(
    verb: str, spelled: list[str], payload: list[bytes], sender: Side
) -> None:
    frame = Frame(verb, tuple(spelled), tuple(payload))
    try:
        message = read(frame, sender)
    except MessageError:
        return
    assert message.frame() == frame
    assert sender in message.SENT_BY


@given(st.binary(max_size=300), st.sampled_from(Side))
def test_any_bytes_are_messages_or_a_peer_error(data: bytes, sender: Side) -> None:
    try:
        for frame in FrameParser().feed(data):
            read(frame, sender)
    except (WireError, MessageError):
        pass


@given(st.binary(max_size=40))
def test_any_bytes_are_one_word_and_back(data: bytes) -> None:
    word = words.quote(data)
    assert word.isascii()
    assert word.isprintable()
    assert " " not in word
    assert word[0] != "+"
    assert word != words.NONE
    assert words.unquote(word) == data


@pytest.mark.parametrize("word", ["%41", "%2d", "%zz", "a%", "%4", "-", "+1", "%%", "a%25%"])
def test_a_word_that_is_not_how_its_value_is_spelled_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="spelled"):
        words.unquote(word)


@pytest.mark.parametrize("word", ["01", "-0", "+1", "1.0", "", "1" * 20, "0x1", "\u0661"])
def test_integers_have_one_spelling(word: str) -> None:
    with pytest.raises(ValueError, match="integer"):
        words.INTEGER.decode(word)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (words.NAME, "no spaces"),
        (words.NAME, "-first"),
        (words.NAME, "a" * 65),
        (words.NAME, "ümlaut"),
        (words.NAME, "line\n"),
        (words.VERSION, "A" * 40),
        (words.VERSION, "a" * 39),
        (words.EPOCH, "a" * 17),
        (words.DIGEST, b"short"),
        (words.INTEGER, 2**63),
        (words.INTEGER, None),
        (words.INTEGER, 1.5),
        (words.TEXT, "\ud800"),
    ],
)
def test_what_has_no_spelling_is_never_sent(kind: words.Kind, value: object) -> None:
    with pytest.raises(ValueError):
        kind.encode(value)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Frame("XYZZY"), "XYZZY"),
        (Frame("NOW", ("1", "a" * 16, "x")), "not for the client"),
        (Frame("SCHEDULE"), "expected SCHEDULE dataset, and dataset is missing"),
        (Frame("SCHEDULE", ("a", "b")), "more came: 'b'"),
        (Frame("SCHEDULE", ("a",), (b"x",)), "more came: b'x'"),
        (Frame("SCHEDULE", ("../a",)), "dataset: '../a' is not a name"),
        (Frame("PIN", ("n", "d", "x")), "expected PIN node dataset version: version:"),
        (Frame("CHUNK", ("a" * 64, "lz4", "1"), (b"x",)), "codec: 'lz4' is none of raw, zstd"),
        (Frame("CHUNK", ("a" * 64, "raw", "1")), "data is missing"),
        (Frame("OFFER", ("a" * 40,)), "pieces is missing"),
    ],
)
def test_a_frame_that_is_no_message_is_told_what_was_expected(frame: Frame, complaint: str) -> None:
    with pytest.raises(MessageError) as caught:
        read(frame, Side.CLIENT)
    assert complaint in str(caught.value)


def test_every_verb_has_a_direction_and_says_in_its_first_line_how_it_looks() -> None:
    for verb, message in VERBS.items():
        assert message.SENT_BY
        assert message.__doc__ is not None
        assert message.__doc__.startswith(f"``{verb}"), verb
        assert attrs.has(message)


def test_features_are_looked_up_by_their_key() -> None:
    hello = Hello(1, "node", "web-1", ("serve=10.0.0.1:80", "empty=", "bare"))
    assert hello.feature("serve") == "10.0.0.1:80"
    assert hello.feature("empty") == ""
    assert hello.feature("bare") is None
    assert hello.feature("absent") is None
