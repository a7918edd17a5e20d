"""What can go wrong with a session; each error says what was expected and what to do."""

from __future__ import annotations

from farmsyncd.errors import BadInput, ConfigError, LocalError, Unavailable


class SessionError(LocalError):
    """Base of what goes wrong with one session."""


class SessionConflict(SessionError):
    """Two requests changed the same ``key`` at once, and this one came later; nothing of it was stored."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"expected to be the only one to change {key!r} of this session, and another request changed it meanwhile; "
            "nothing of this request was stored: read the session again and repeat the change"
        )
        self.key = key


class SessionGone(SessionError):
    """The session ended (destroyed, rotated away or expired) while a request was changing it; nothing was stored."""

    def __init__(self) -> None:
        super().__init__(
            "expected the session to be there still, and it has ended while this request ran; nothing of this request "
            "was stored: begin again with the cookie that the client has now"
        )


class SessionClosed(SessionError):
    """The session was changed after the response had begun, when a change can no longer be stored before it."""

    def __init__(self) -> None:
        super().__init__(
            "expected changes to the session before the response's first byte, and found one after it; "
            "change the session before you send the response"
        )


class NotStorable(SessionError, BadInput):
    """A value is of a kind that sessions do not keep, or a key is no text; the message names the place."""


class SessionTooLarge(SessionError, BadInput):
    """The state would be larger than the limit; the message names the largest keys and their sizes in bytes."""


class DamagedState(SessionError):
    """The bytes that the database has for a session, or for a value in it, are not what farmsync writes."""

    def __init__(self, what: str) -> None:
        super().__init__(f"expected a session's state as farmsync encodes it, and found other bytes: {what}")


class StoreUnavailable(Unavailable):
    """The sessions' database cannot be reached, or did not answer in time; whether a write was done is not known."""


class WrongSchema(ConfigError):
    """The database holds tables of another farmsync's sessions, or of a newer one."""
