"""The layers of virtual disks, and which of them their storage is about to merge. Pure; from the records of VDIs.

SM's collector merges a hidden layer into its parent when the parent has no other child (sm drivers/cleanup.py): a layer
that other disks share is never merged, and a visible disk is its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One VHD file of a storage repository: a VDI of `size` bytes on disk. `hidden`: a base copy, nobody's own disk."""

    uuid: str
    parent: str
    hidden: bool
    size: int


def layers_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Layer]:
    """uuid -> layer, from VDI records."""
    return {
        str(record["uuid"]): Layer(
            uuid=str(record["uuid"]),
            parent=str(record["sm_config"].get("vhd-parent", "")),
            hidden=not record["managed"],
            size=int(record["physical_utilisation"]),
        )
        for record in records
    }


def to_be_merged(chain: Sequence[str], layers: Mapping[str, Layer]) -> tuple[str, ...]:
    """Those of a chain (uuids, leaf first) that the collector will merge into their parents."""
    children: dict[str, int] = {}
    for layer in layers.values():
        children[layer.parent] = children.get(layer.parent, 0) + 1
    found = [layers[uuid] for uuid in chain if uuid in layers]
    return tuple(
        layer.uuid for layer in found if layer.hidden and layer.parent in layers and children[layer.parent] == 1
    )


def chain_of(leaf: str, layers: Mapping[str, Layer]) -> tuple[str, ...]:
    """The uuids of a disk's layers, leaf first."""
    found = []
    while leaf in layers and leaf not in found:
        found.append(leaf)
        leaf = layers[leaf].parent
    return tuple(found)
