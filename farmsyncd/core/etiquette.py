"""Who may say what before and after the greeting: the rules of a conversation, without a connection."""

from __future__ import annotations

from farmsyncd.core.messages import Message, MessageError, Side, read
from farmsyncd.core.messages.clock import Time
from farmsyncd.core.messages.content import Chunk
from farmsyncd.core.messages.greeting import PROTOCOL, Bye, Hello
from farmsyncd.core.messages.schedule import Datasets, Schedule
from farmsyncd.core.wire import Frame

FOR_STRANGERS = (Time, Schedule, Datasets)


class Etiquette:
    """Reads the peer's frames and holds it to the rules. ``sender`` is the peer's side.

    A peer that is ``expected`` to greet may send nothing else before HELLO, but for BYE and, if it is the client,
    the questions that people ask without a greeting.
    """

    def __init__(self, sender: Side, *, expected: bool) -> None:
        self.peer: Hello | None = None
        self._sender = sender
        self._expected = expected

    def read(self, frame: Frame) -> Message:
        """The message; a HELLO is remembered as ``peer``. Raises MessageError when it is none, or out of place."""
        if frame.verb == Hello.VERB and frame.words and frame.words[0] != str(PROTOCOL):
            raise MessageError(
                f"this side speaks version {PROTOCOL} of the farmsync protocol, and the peer speaks "
                f"{frame.words[0][:20]}: install the same farmsync on both"
            )
        message = read(frame, self._sender)
        if isinstance(message, Hello):
            self._meet(message)
        elif self.peer is None and self._expected and not isinstance(message, (Bye, *FOR_STRANGERS)):
            raise MessageError(f"expected HELLO before {message.VERB}")
        return message

    def _meet(self, hello: Hello) -> None:
        if self.peer is not None:
            raise MessageError("expected one HELLO, and a second one came")
        if (hello.role == "data") is not (self._sender is Side.SERVER):
            raise MessageError(
                f"expected the {self._sender.value} to have a {self._sender.value}'s role, and {hello.role} came"
            )
        self.peer = hello

    def awaits_answer(self, message: Message) -> bool:
        """Whether the peer is one that asks (a person, an operator) and ``message`` a question with one answer."""
        return (self.peer is None or self.peer.role == "operator") and not isinstance(message, Chunk)
