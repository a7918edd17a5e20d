"""Tells what holds connections of forks, for as long as it exists."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol


class Forks(Protocol):
    """What must know when this process forks: before it, and after it on each side."""

    def before_fork(self) -> None:
        """About to fork."""

    def after_fork_in_parent(self) -> None:
        """In the process that forked."""

    def after_fork_in_child(self) -> None:
        """In the new process, which has one thread, and shares what was open."""


def tell_of_forks(one: Forks) -> None:
    """From now on, for as long as anybody else holds ``one``."""
    weak: Callable[[], Any] = weakref.ref(one)

    def telling(name: str) -> Callable[[], None]:
        def tell() -> None:
            if (known := weak()) is not None:
                getattr(known, name)()

        return tell

    os.register_at_fork(
        before=telling("before_fork"),
        after_in_parent=telling("after_fork_in_parent"),
        after_in_child=telling("after_fork_in_child"),
    )
