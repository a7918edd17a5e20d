"""The document's whole conversation, held with a data server's own parts, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted

from farmsyncd.core.messages import Side, read
from farmsyncd.core.wire import FrameParser
from tests.conversation import Line, Stage, conversation


@pytest_twisted.ensureDeferred
async def test_the_conversation_of_the_document_is_what_a_data_server_says(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    try:
        for line in conversation():
            if isinstance(line, int):
                stage.pass_time(line)
            elif line.way == ">":
                stage.say(line)
            else:
                await stage.hear(line)
        assert stage.unheard() == {}
    finally:
        await stage.close()


def test_the_conversation_is_made_of_whole_messages_that_their_senders_may_send() -> None:
    for line in conversation():
        if isinstance(line, Line) and b"HELLO 2" not in line.data:
            parser = FrameParser()
            for frame in parser.feed(line.data):
                read(frame, Side.CLIENT if line.way == ">" else Side.SERVER)
            assert parser.idle
