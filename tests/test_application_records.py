"""What an application tells Python's ``logging`` is in the node's log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import LogLevel, capturedLogs, formatEvent

from farmsyncd.node.application.records import told_to_the_node


class Reactor:
    """Calls at once what threads ask it to."""

    def callFromThread(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:  # noqa: N802
        function(*args, **kwargs)


REACTOR = cast("IReactorFromThreads", Reactor())


@contextlib.contextmanager
def without_handlers() -> Iterator[None]:
    """``logging`` as it is in a process that nobody has told anything: pytest has handlers of its own."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    for handler in before:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in before:
            root.addHandler(handler)


def test_records_keep_their_names_levels_and_tracebacks() -> None:
    with without_handlers(), capturedLogs() as events, told_to_the_node(REACTOR):
        logging.getLogger("shop").warning("only %d {left}", 3)
        logging.getLogger("shop").info("nobody asked for this")
        logging.getLogger("farmsync.sessions").info("a request was answered with 409: %s", "{}")
        logging.getLogger("farmsync.sessions").debug("nor for this")
        try:
            raise ValueError("of the shop")
        except ValueError:
            logging.getLogger("shop.cart").exception("failed")
    told = [(one["log_namespace"], one["log_level"], formatEvent(one).partition("\n")[0]) for one in events]
    assert told == [
        ("shop", LogLevel.warn, "only 3 {left}"),
        ("farmsync.sessions", LogLevel.info, "a request was answered with 409: {}"),
        ("shop.cart", LogLevel.error, "failed"),
    ]
    assert "ValueError: of the shop" in formatEvent(events[-1])


def test_an_application_that_has_handlers_of_its_own_keeps_them_alone() -> None:
    own, sessions = logging.NullHandler(), logging.getLogger("farmsync.sessions")
    for logger in (logging.getLogger(), sessions):
        with without_handlers():
            logger.addHandler(own)
            try:
                with capturedLogs() as events, told_to_the_node(REACTOR):
                    sessions.warning("the sessions' database is away")
            finally:
                logger.removeHandler(own)
        assert events == []


def test_afterwards_all_is_as_it_was() -> None:
    root, sessions = logging.getLogger(), logging.getLogger("farmsync.sessions")
    with without_handlers():
        with told_to_the_node(REACTOR):
            assert (len(root.handlers), sessions.level) == (1, logging.INFO)
        assert (root.handlers, sessions.level) == ([], logging.NOTSET)
