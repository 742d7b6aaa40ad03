"""Every error turnlog raises, as one tree, split by what the caller should do about it.

    TurnlogError
    ├── UsageError               the call is wrong: change the argument or the code
    │   ├── InvalidInput             a value that cannot be accepted (law 13)
    │   │   └── TooLarge                 more than one of the `Limits`; says by how much
    │   ├── ConfigurationError       a key, address, agent, tool or setting that does not fit
    │   ├── NotFound                 no such conversation, turn, call, item or version
    │   └── NotSupported             this build, store or provider cannot do that
    ├── StateError               the call is fine, the conversation is elsewhere: look, then decide
    │   ├── Busy                     a turn is running
    │   ├── Waiting                  a turn waits for an answer
    │   ├── NotPending               that call is settled already
    │   ├── AlreadyAnswered          that call has another answer
    │   ├── LateAnswer               the model has been told that this call was abandoned
    │   ├── ItemPresent              that item is in the context already
    │   ├── RequestOpen              a request is open at that version
    │   ├── IdempotencyMismatch      that key was used for another input
    │   ├── TooMany                  this process runs as many turns as it may
    │   └── Closed                   the log, store or transport was closed
    ├── Conflict                 somebody else was first: read again and retry
    │   ├── VersionConflict          the conversation has moved on
    │   ├── IdConflict               that event id holds something else
    │   └── StaleEpoch               another owner took the turn over
    ├── StoreError               the database: mend the cause, then try again
    │   ├── StoreUnavailable         locked, full or unreadable just now; nothing was written
    │   ├── OutcomeUnknown           a commit that may have happened: append the same events again
    │   ├── StoreMoved               removed, moved or replaced while open; nothing was written
    │   ├── StoreReadOnly            opened read-only, or the file is
    │   ├── NotTurnlog               the file is a database of somebody else
    │   ├── SchemaMismatch           written by a newer turnlog, or not migrated
    │   └── StoreCorrupt             what is stored does not verify
    ├── ImportFailed             a file that cannot be imported; names the line
    └── ProviderError            the provider or the way to it
        ├── TransportError           what a transport raises; the engine records it as an outcome
        │   ├── NotSent                  nothing reached the provider
        │   ├── Unheard                  possibly sent, and nothing was heard
        │   └── Lost                     heard from, and then lost
        ├── ProviderRefused          it answered, and said no; carries its status and code
        ├── TurnFailed               the turn ended `failed`; carries the result
        └── OutputInvalid            the answer does not fit `output_type`; carries the text

The message names the thing and the fix. What a program needs stands in attributes.
"""

from __future__ import annotations


class TurnlogError(Exception):
    """The root of every error that turnlog raises on purpose."""


# -- the call is wrong ---------------------------------------------------------------------


class UsageError(TurnlogError):
    """The call is wrong as it stands; the same call can never work."""


class InvalidInput(UsageError, ValueError):
    """A value that cannot be accepted; nothing was written or sent."""


class TooLarge(InvalidInput):
    """An item or a request that is larger than a limit; nothing was written or sent.

    `setting` is the field of `Limits`, `limit` what it says, `size` how large the thing is, and
    `over` by how much that is too much: in bytes, or in items.
    """

    def __init__(self, message: str, *, setting: str, limit: int, size: int) -> None:
        super().__init__(message)
        self.setting = setting
        self.limit = limit
        self.size = size

    @property
    def over(self) -> int:
        """By how much it is too large."""
        return self.size - self.limit


class ConfigurationError(UsageError, ValueError):
    """A key, address, agent, tool or setting that is missing or does not fit."""


class NotFound(UsageError, LookupError):
    """No such conversation, turn, call, item or version."""


class NotSupported(UsageError):
    """This build, store or provider cannot do that."""


# -- the conversation is elsewhere ---------------------------------------------------------


class StateError(TurnlogError):
    """The call is fine, but the conversation is not in a state for it."""


class Busy(StateError):
    """A turn of this conversation is running; `turn` is its id."""

    def __init__(self, message: str, *, turn: str | None = None) -> None:
        super().__init__(message)
        self.turn = turn


class Waiting(StateError):
    """A turn of this conversation waits for an answer; `turn` is its id."""

    def __init__(self, message: str, *, turn: str | None = None) -> None:
        super().__init__(message)
        self.turn = turn


class NotPending(StateError):
    """That call is settled already, or cannot be settled in this way."""


class AlreadyAnswered(StateError):
    """That call was answered with something else."""


class LateAnswer(StateError):
    """A request already told the model that this call was abandoned."""


class ItemPresent(StateError):
    """That item is in the context already; `replace` changes a context."""


class RequestOpen(StateError):
    """A request is open at that version; `nearest` is the nearest version that can be used."""

    def __init__(self, message: str, *, nearest: int) -> None:
        super().__init__(message)
        self.nearest = nearest


class IdempotencyMismatch(StateError):
    """That idempotency key belongs to a turn with another input; `turn` is its id."""

    def __init__(self, message: str, *, turn: str) -> None:
        super().__init__(message)
        self.turn = turn


class TooMany(StateError):
    """As many turns run in this process as may run at once; `limit` is how many that is."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class Closed(StateError):
    """The log, store or transport was closed."""


# -- somebody else was first ---------------------------------------------------------------


class Conflict(TurnlogError):
    """Somebody else wrote first; read again and retry."""


class VersionConflict(Conflict):
    """The conversation is at version `actual`, not at `expected`."""

    def __init__(self, conversation: str, *, expected: int, actual: int) -> None:
        super().__init__(
            f"conversation {conversation!r} is at version {actual}, not {expected}:"
            " read it again and retry"
        )
        self.conversation = conversation
        self.expected = expected
        self.actual = actual


class IdConflict(Conflict):
    """An event id of the append is stored already with other contents."""


class StaleEpoch(Conflict):
    """The lease was taken over by another owner, or is held by one that lives."""


# -- the database --------------------------------------------------------------------------


class StoreError(TurnlogError):
    """The database cannot do what was asked; mend the cause and try again."""


class StoreUnavailable(StoreError):
    """The database is locked, full or unreadable just now; nothing was written."""


class OutcomeUnknown(StoreError):
    """A commit failed in a way that leaves open whether it happened (law 5).

    Appending the same events again settles it: the store answers with what is there.
    """


class StoreMoved(StoreError):
    """The file was removed, moved or replaced while it was open; nothing was written.

    Once the file is back where it was, the log goes on; another file in its place is another log.
    """


class StoreReadOnly(StoreError):
    """The log was opened read-only, or the file cannot be written."""


class NotTurnlog(StoreError):
    """The file is not a turnlog database."""


class SchemaMismatch(StoreError):
    """The database was written by a newer turnlog, or has not been migrated."""


class StoreCorrupt(StoreError):
    """What is stored does not verify, or cannot be read back."""


class ImportFailed(TurnlogError):
    """A file that cannot be imported; `line` counts from 1, or is None for the whole file."""

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(f"line {line}: {message}" if line is not None else message)
        self.line = line


# -- the provider, and the way to it -------------------------------------------------------


class ProviderError(TurnlogError):
    """The provider, or the way to it, did not do what was asked."""


class TransportError(ProviderError):
    """What a transport raises where no frame can say it; the engine records an outcome."""


class NotSent(TransportError):
    """Nothing of the request reached the provider: it may be sent again (law 10).

    `status` is the HTTP status of a refused upgrade, where there was one, `retry_after` how many
    seconds the refusal asks to wait; `code` is a word for a program.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class Unheard(TransportError):
    """The request was possibly sent, and nothing was heard: `on_unknown` decides (law 10)."""


class Lost(TransportError):
    """The provider was heard from, and then the connection was lost (law 5)."""


class ProviderRefused(ProviderError):
    """The provider answered that it will not do it.

    `status` and `code` are the provider's, `retry_after` how many seconds it asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class TurnFailed(ProviderError):
    """A turn ended `failed`. `result` is the turn's result, `code` and `status` the provider's."""

    def __init__(
        self,
        message: str,
        *,
        result: object = None,
        code: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.result = result
        self.code = code
        self.status = status


class OutputInvalid(ProviderError):
    """The final answer does not fit `output_type`; `text` is what the model said."""

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text
