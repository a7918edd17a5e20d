"""A worker's log lines on their way to the supervisor's log: one line for each event, its level first."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, Logger, LogLevel, eventAsText

_BREAK = "\x1e"


def logged(event: LogEvent) -> bytes:
    """An event as a line."""
    level = event.get("log_level", LogLevel.info)
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    return f"{level.name} {text.strip().replace(chr(10), _BREAK)}\n".encode("utf-8", "replace")


class Lines:
    """Puts what worker ``number`` says into the log; what is not from its logger, such as a crash's words, too."""

    log = Logger()

    def __init__(self, number: int) -> None:
        self._number = number
        self._rest = b""

    def heard(self, data: bytes) -> None:
        """It said this."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line.decode("utf-8", "replace"))

    def end(self) -> None:
        """It says no more."""
        if self._rest:
            self._tell(self._rest.decode("utf-8", "replace"))
            self._rest = b""

    def _tell(self, line: str) -> None:
        name, _, text = line.partition(" ")
        level: Any = LogLevel.warn
        if any(one.name == name for one in LogLevel.iterconstants()):
            level, line = LogLevel.levelWithName(name), text
        self.log.emit(level, "worker {worker}: {line}", worker=self._number, line=line.replace(_BREAK, "\n"))
