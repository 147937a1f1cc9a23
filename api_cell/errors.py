"""What the front door says no with, one class per kind of no. `code` is the HTTP status, `key` the name OpenStack
clients know it by; api_cell.http.app turns them into answers. The text is for the tenant: it names the field and
the remedy."""

from typing import ClassVar

from cells.errors import Permanent


class Rejected(Permanent):
    """A request that is not done, and changed nothing."""

    code: ClassVar[int] = 400
    key: ClassVar[str] = "badRequest"
    retry_after: float | None = None


class Invalid(Rejected):
    """The request itself is wrong."""


class Unauthorized(Rejected):
    """Who asks is not known."""

    code = 401
    key = "unauthorized"


class Forbidden(Rejected):
    """Who asks may not, or the quota is used up."""

    code = 403
    key = "forbidden"


class NotFound(Rejected):
    """No such thing, or not yours: the same answer for both."""

    code = 404
    key = "itemNotFound"


class BadMethod(Rejected):
    """The resource is there, the method is not."""

    code = 405
    key = "badMethod"


class NotAcceptable(Rejected):
    """A microversion that is not served."""

    code = 406
    key = "computeFault"


class NotAllowedNow(Rejected):
    """The state of the thing does not allow it."""

    code = 409
    key = "conflictingRequest"


class TooLarge(Rejected):
    """More than a request may carry."""

    code = 413
    key = "overLimit"


class BadMediaType(Rejected):
    """A body of a kind that is not read here."""

    code = 415
    key = "badMediaType"


class TooMany(Rejected):
    """The project asks for more than its share; `retry_after` seconds from now it may ask again."""

    code = 429
    key = "overLimit"

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Busy(Rejected):
    """The whole cell has more to do than it can do soon, whoever asks."""

    code = 503
    key = "serviceUnavailable"

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class NoAnswer(Rejected):
    """Who should know did not answer in time."""

    code = 503
    key = "serviceUnavailable"


class NotServed(Rejected):
    """OpenStack has it, this API does not."""

    code = 501
    key = "notImplemented"
