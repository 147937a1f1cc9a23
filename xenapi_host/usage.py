"""What servers take of their storage: the layers of their disks, each counted once. Pure; from a pool's records."""

from collections.abc import Mapping
from dataclasses import dataclass

from xenapi_host.layers import Layer, chain_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes. `virtual`: what its disks look like to it; `own`: the layers that it alone has; `shared`: those that
    others have, too, such as the image's."""

    virtual: int
    own: int
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """`total`: the layers of all servers together, each counted once however many share it. `servers`: by id."""

    total: int
    servers: Mapping[bytes, Usage]


def usage_of(disks: Mapping[bytes, Mapping[str, int]], layers: Mapping[str, Layer]) -> PoolUsage:
    """`disks`: for each server the uuids of its disks with their virtual sizes; `layers`: every VDI of the pool."""
    had = {server: frozenset(step for leaf in its for step in chain_of(leaf, layers)) for server, its in disks.items()}
    holders: dict[str, int] = {}
    for found in had.values():
        for uuid in found:
            holders[uuid] = holders.get(uuid, 0) + 1
    used_outside = _used_outside(layers, holders)
    servers = {}
    for server, found in had.items():
        own = {uuid for uuid in found if holders[uuid] == 1 and uuid not in used_outside}
        servers[server] = Usage(
            virtual=sum(disks[server].values()),
            own=sum(layers[uuid].size for uuid in own),
            shared=sum(layers[uuid].size for uuid in found - own),
        )
    return PoolUsage(total=sum(layers[uuid].size for uuid in holders), servers=servers)


def _used_outside(layers: Mapping[str, Layer], held: Mapping[str, int]) -> frozenset[str]:
    """The layers that disks of no server stand on: cached images, snapshots, copies of an administrator."""
    leaves = [uuid for uuid, layer in layers.items() if not layer.hidden and uuid not in held]
    return frozenset(step for leaf in leaves for step in chain_of(leaf, layers))
