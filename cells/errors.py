"""The errors of celltree, typed by what the caller should do next. Messages tell the remedy.

`BadInput`: say it to whoever sent it, nothing was changed. `Temporary`: try again after a while. `Permanent`: do not
try again as it is. `Conflict`: somebody else changed the row first, decide again. `Refusal`: a cell says no, with a
stable code that other cells may act on.
"""


class CelltreeError(Exception):
    """Anything celltree raises on purpose."""


class BadInput(CelltreeError):
    """What came in is not valid; the text names the field and the remedy."""


class Permanent(CelltreeError):
    """Trying again as it is would fail again."""


class Temporary(CelltreeError):
    """Trying again after `retry_after` seconds may succeed."""

    def __init__(self, text: str, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Conflict(Temporary):
    """A unit of work lost a race (deadlock, lock wait, lost compare-and-swap): decide again on fresh rows."""


class AmbiguousCommit(Temporary):
    """The connection was lost while committing: the unit may be there or not. Read it again by id, never guess."""


class LeaseLost(Permanent):
    """Another daemon holds the shard now; stop at once and touch nothing."""


class Refusal(CelltreeError):
    """A cell's no. `code` is stable (see cells.messages.RefusalCode), the text is for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
