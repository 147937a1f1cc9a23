"""A wish on its way: saved beside the server's row as a wake that is due at once, so the daemon takes it up whatever
becomes of this process."""

from typing import Any

from api_cell.errors import TooLarge
from api_cell.rows import OpenIntent, ServerRow
from api_cell.service.api import Api
from cells import codec
from cells.messages import Intent
from cells.record import Record
from cells.rows import WakeRow, shard_of

# What a leaf is told of a server must fit into a bundle, with what signing and routing add to it.
LARGEST_COMMAND = 192 * 1024


def refuse_large(command: Any) -> None:
    """TooLarge for a command that could not travel."""
    size = len(codec.pack(command))
    if size > LARGEST_COMMAND:
        raise TooLarge(
            f"What has to be sent to a cell for this is {size} bytes, and {LARGEST_COMMAND} is the limit; "
            "use less metadata, or an image with fewer properties"
        )


def wake_for(api: Api, row: ServerRow, wish: OpenIntent, command: Any = None) -> WakeRow:
    """The wake that tells our own daemon of a wish; `command` is the body of the record it becomes."""
    cell = api.settings.cell
    record = Record(
        id=api.ids(),
        body=Intent(action=wish.action, number=wish.number, body=b"" if command is None else codec.pack(command)),
        origin=cell,
        destination=cell,
        server=row.id,
        request=wish.request,
    )
    return WakeRow(id=record.id, shard=shard_of(row.id), due=wish.at, server=row.id, data=codec.pack_record(record))
