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


class Pools:
    """The open sessions by pool name."""

    def __init__(
        self, *, store: Store, identity: Identity, faces: Mapping[str, Callable[[], Session]] | None = None
    ) -> None:
        self._store = store
        self._identity = identity
        self._faces = faces or {}
        self._lock = threading.Lock()
        self._open: dict[str, tuple[PoolRow, Session]] = {}

    def session(self, pool: str) -> Session:
        """The session of a pool; a new one when its address or password was changed. Permanent when it is not known."""
        with self._store.unit(lock=False) as unit:
            row = unit.get(PoolRow, pool)
        if row is None:
            raise Permanent(f"pool {pool!r} is not registered in this cell; see `celltree host register`")
        with self._lock:
            known = self._open.get(pool)
            if known is not None:
                before, session = known
                if (before.url, before.user, before.secret) == (row.url, row.user, row.secret):
                    return session
                session.close()
            session = self._connect(row)
            self._open[pool] = (row, session)
            return session

    def names(self) -> tuple[str, ...]:
        """Every pool of the cell."""
        with self._store.unit(lock=False) as unit:
            return tuple(row.name for row in unit.all(PoolRow))

    def close(self) -> None:
        """Log out everywhere."""
        with self._lock:
            for _, session in self._open.values():
                session.close()
            self._open.clear()

    def _connect(self, row: PoolRow) -> Session:
        if row.url.startswith("light:"):
            name = row.url.removeprefix("light:")
            if name not in self._faces:
                raise Permanent(f"light hosts {name!r} are not in this process")
            return self._faces[name]()
        password = self._identity.kept(row.secret).decode()
        return connect(Access(url=row.url, user=row.user, password=password, fingerprint=row.fingerprint))
