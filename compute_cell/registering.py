"""Registering pools with a cell: an administrator's doing, taken up by the cell's daemon at its next tick."""

from collections.abc import Callable

from cells.errors import BadInput
from cells.identity import Identity
from cells.ports import Unit
from compute_cell.rows import PoolRow


def register_pool(
    unit: Unit,
    identity: Identity,
    random_bytes: Callable[[int], bytes],
    *,
    name: str,
    url: str,
    user: str,
    password: str,
    fingerprint: str = "",
) -> PoolRow:
    """Save how to log in to a pool; the password is kept sealed with the cell's own key. A pool that is there already
    gets the new address and password, and its hosts stay."""
    if not url.startswith(("http://", "https://", "light:")):
        raise BadInput(f"pool {name!r}: url {url!r} must begin with https:// (or http:// for a simulator)")
    known = unit.get(PoolRow, name)
    row = PoolRow(
        name=name,
        url=url,
        user=user,
        secret=identity.keep(password.encode(), random_bytes),
        fingerprint=fingerprint,
        heard=known.heard if known is not None else 0,
        when_host_dies=known.when_host_dies if known is not None else "",
        when_disks_are_lost=known.when_disks_are_lost if known is not None else "",
    )
    unit.save(row)
    return row
