"""What can be wrong with a VHD file or a chain of them. Each error names the file and the remedy."""

from cells.errors import BadInput, Permanent, Temporary


class VhdError(Permanent):
    """Anything wrong with a VHD that will still be wrong at the next try."""


class NotAVhd(VhdError):
    """The file is not a regular file, or carries no VHD footer."""


class DamagedVhd(VhdError):
    """A part of the file contradicts the format. `part` and `detail` are what `vhd-util check` prints."""

    def __init__(self, path: str, part: str, detail: str) -> None:
        super().__init__(f"{path}: {part} invalid: {detail}")
        self.path, self.part, self.detail = path, part, detail


class ChainError(VhdError):
    """The files of a chain do not fit together."""


class ParentMissing(ChainError):
    """The parent's file is not in the folder."""


class ParentMismatch(ChainError):
    """The file found under the parent's name is another disk."""


class ParentOutsideFolder(ChainError):
    """The parent's name would lead out of the folder; it is never followed."""


class ChainLoop(ChainError):
    """A file is its own ancestor."""


class ChainTooLong(ChainError):
    """More than 30 files: XenServer refuses such chains (SR_BACKEND_FAILURE_109). Coalesce first."""


class CannotShrink(VhdError, BadInput):
    """A VHD only grows: what lies behind the new end would be lost. Copy into a smaller disk instead."""


class SizeRefused(VhdError, BadInput):
    """The virtual size is not a positive multiple of 512 bytes, or is over 2040 GiB."""


class StreamEnded(VhdError):
    """A stream gave fewer or more bytes than it promised."""


class ImageRefused(VhdError):
    """An image archive breaks a rule. `member` names the file inside the archive ("" = the archive itself)."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"image refused: {member}: {reason}" if member else f"image refused: {reason}")
        self.member, self.reason = member, reason


class VhdInUse(Temporary):
    """Another writer has the file open; close that disk first."""
