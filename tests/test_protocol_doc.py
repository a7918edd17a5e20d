"""The protocol's document and its code say the same."""

from __future__ import annotations

import re

import pytest

from farmsyncd.core.messages import VERBS, Side, read
from farmsyncd.core.messages.greeting import PROTOCOL, REFUSALS
from farmsyncd.core.messages.schedule import NODE_STATES
from farmsyncd.core.wire import FrameParser, Limits, encode
from farmsyncd.edges.link import LinkSettings
from tests.conversation import DOCUMENT

TEXT = DOCUMENT.read_text()
SECTIONS = re.findall(r"^### `([^`]*)`\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
NAMES = [
    "bytes of a line",
    "netstrings of a frame",
    "bytes of one netstring",
    "bytes of a frame's netstrings together",
]
SENDERS = {
    "either side": frozenset(Side),
    "the client": frozenset({Side.CLIENT}),
    "the server": frozenset({Side.SERVER}),
}


def test_every_verb_is_documented_once_and_no_other() -> None:
    assert sorted(usage.split()[0] for usage, _section in SECTIONS) == sorted(VERBS)


@pytest.mark.parametrize(("usage", "section"), SECTIONS, ids=[usage.split()[0] for usage, _section in SECTIONS])
def test_a_verb_looks_and_is_sent_as_documented_and_its_example_is_one(usage: str, section: str) -> None:
    message = VERBS[usage.split(maxsplit=1)[0]]
    assert usage == message.usage()
    (sender,) = re.findall(r"^Sent by (.*)\.$", section, re.MULTILINE)
    assert SENDERS[sender] == message.SENT_BY
    (example,) = re.findall(r"```frame\n(.*)\n```", section)
    stream = example.replace("\\n", "\n").encode("ascii")
    (frame,) = FrameParser().feed(stream)
    assert isinstance(read(frame, next(iter(message.SENT_BY))), message)
    assert encode(frame) == stream


def test_codes_and_states_are_documented() -> None:
    sections = {usage.split()[0]: section for usage, section in SECTIONS}
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", sections["NO"], re.MULTILINE)) == REFUSALS
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", sections["STANDING"], re.MULTILINE)) == NODE_STATES
    assert f"version {PROTOCOL}\n" in TEXT


def test_limits_and_intervals_are_those_of_the_code() -> None:
    settings = LinkSettings()
    for name, greeted, stranger in zip(
        [
            "bytes of a line",
            "netstrings of a frame",
            "bytes of one netstring",
            "bytes of a frame's netstrings together",
        ],
        numbers(Limits()),
        numbers(settings.stranger),
        strict=True,
    ):
        assert f"| {name} | {greeted} | {stranger} |" in TEXT
    assert settings.limits == Limits()
    prose = " ".join(TEXT.split())
    assert f"within {settings.greeting_timeout:.0f} seconds" in prose
    assert f"after {settings.idle_timeout:.0f} seconds without a question" in prose
    assert f"Every {settings.heartbeat:.0f} seconds a client" in prose
    assert (settings.silent_beats, settings.stalled_beats) == (3, 3)
    assert f"for {settings.stuck_beats} intervals" in prose
    assert f"{settings.unsent >> 20} MiB of messages" in prose
    assert f"{settings.unsent_reading >> 20} MiB of answers" in prose
    assert f"After {settings.patience:.0f} seconds it is cut off" in prose


def numbers(limits: Limits) -> list[int]:
    return [limits.line, limits.count, limits.netstring, limits.total]
