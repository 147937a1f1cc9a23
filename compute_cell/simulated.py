"""What an administrator does to the hosts of a leaf, without the command line: for simulations."""

from dataclasses import dataclass, replace

from cells.ports import Store
from compute_cell.rows import HostRow, HostState


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The hosts of one leaf, by its store."""

    store: Store

    def confirm_dead(self, uuid: str, dead: bool) -> None:
        """As `celltree host confirm-dead` does for a host that is down; or as `celltree host enable`: it is back."""
        with self.store.unit() as unit:
            host = unit.get(HostRow, uuid)
            if host is None:
                return
            if dead and host.state is HostState.DOWN:
                unit.save(replace(host, state=HostState.DEAD))
            if not dead and host.state is HostState.DEAD:
                unit.save(replace(host, state=HostState.ENABLED))


def open_ground(store: Store) -> Ground:
    """The hosts of a leaf."""
    return Ground(store=store)
