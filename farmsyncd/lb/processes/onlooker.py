"""A supervisor's own view of the farm, for what it answers itself: who would get new sources, as the workers see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService

from farmsyncd.errors import BadInput
from farmsyncd.lb.balancing import balancing
from farmsyncd.lb.config import BalancerConfig
from farmsyncd.lb.farm import Farm
from farmsyncd.lb.notes import Notes


class Onlooker(MultiService):
    """Follows the farm as a worker does, and has no clients."""

    def __init__(self, config: BalancerConfig, reactor: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parts = balancing(config, reactor)
        for service in self._parts.services:
            service.setServiceParent(self)
        self._notes: Notes | None = None
        if config.state is not None:
            self._notes = Notes(config.state / "farm.json", self._parts.mind.dispatcher, reactor, writes=False)

    @property
    def farm(self) -> Farm:
        """The farm as it is seen."""
        return self._parts.mind.farm

    def startService(self) -> None:  # noqa: N802 - IService
        """Begin with what was written down."""
        if self._notes is not None:
            self._notes.load()
        super().startService()  # type: ignore[no-untyped-call]

    def told(self, words: Sequence[str]) -> None:
        """An order was given to the workers."""
        try:
            self._parts.steering.answer(words)
        except BadInput:
            return  # they say so
