"""Sessions to the pools of this cell, opened when first needed and kept. Called from job threads.

A pool's URL is http(s) for a XenServer or the simulator; `light:NAME` names hosts in this process's memory, which
whoever builds the role has put in `faces`.
"""

import threading
from collections.abc import Callable, Mapping

from cells.errors import Permanent
from cells.identity import Identity
from cells.ports import Store
from compute_cell.rows import PoolRow
from xenapi_host.session import Access, Session, connect

_LIGHT = "light:"


class Pools:
    """The open sessions by pool name."""

    def __init__(
        self, *, store: Store, identity: Identity, faces: Mapping[str, Callable[[], Session]] | None = None
    ) -> None:
        self._store = store
        self._identity = identity
        self._faces = faces or {}
        self._lock = threading.Lock()
        self._open: dict[str, tuple[PoolRow, Access, Session]] = {}

    def session(self, pool: str) -> Session:
        """The session of a pool; a new one when its address or password was changed. Permanent when it is not known."""
        with self._store.unit(lock=False) as unit:
            row = unit.get(PoolRow, pool)
        if row is None:
            raise Permanent(f"pool {pool!r} is not registered in this cell; see `celltree host register`")
        with self._lock:
            known = self._open.get(pool)
            if known is not None and known[0].secret == row.secret and known[1] == _access(row, known[1].password):
                return known[2]
            access = _access(row, self._password(row))
            if known is not None:
                if known[1] == access:  # the same password, sealed anew
                    self._open[pool] = (row, access, known[2])
                    return known[2]
                known[2].close()
            session = self._connect(access)
            self._open[pool] = (row, access, session)
            return session

    def names(self) -> tuple[str, ...]:
        """Every pool of the cell."""
        with self._store.unit(lock=False) as unit:
            return tuple(row.name for row in unit.all(PoolRow))

    def close(self) -> None:
        """Log out everywhere."""
        with self._lock:
            for _, _, session in self._open.values():
                session.close()
            self._open.clear()

    def _password(self, row: PoolRow) -> str:
        return "" if row.url.startswith(_LIGHT) else self._identity.kept(row.secret).decode()

    def _connect(self, access: Access) -> Session:
        if not access.url.startswith(_LIGHT):
            return connect(access)
        name = access.url.removeprefix(_LIGHT)
        if name not in self._faces:
            raise Permanent(f"light hosts {name!r} are not in this process")
        return self._faces[name]()


def _access(row: PoolRow, password: str) -> Access:
    return Access(url=row.url, user=row.user, password=password, fingerprint=row.fingerprint)
