"""What all cells and hosts of a lab have: rows of every database, VMs and disks of every pool, images."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api_cell.audit import audit as audit_api
from cells.audit import Audit, DiskFact, PoolFacts, VmFact
from cells.config import identity
from cells.errors import Temporary
from cells.house import system_clock
from cells.lab.lab import Lab
from cells.names import CellName, id_from_text
from cells.record import NO_SERVER
from cells.registering import open_store
from cells.rows import InboxRow, JobRow, OutboxRow, ParkedRow
from cells.topology_file import API
from compute_cell.audit import audit as audit_leaf
from routing.neighbourhood import Neighbourhood
from tests.chaos.history import End
from tests.chaos.tenants import Door
from xenapi_host import tags
from xenapi_host.plan import CONFIG_DEVICE
from xenapi_host.session import Access, connect

MIB = 2**20
FETCHED = 3
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """`busy`: what still waits or goes on, in words. `records`: how many have had their effect. `images`: status by
    id. `damaged`: images that were fetched and are not what the image service says of them, in words."""

    audits: Mapping[CellName, Audit]
    pools: Mapping[CellName, PoolFacts]
    parked: Mapping[CellName, tuple[str, ...]]
    busy: tuple[str, ...]
    records: int
    images: Mapping[str, str]
    damaged: tuple[str, ...] = ()


def look(lab: Lab, door: Door) -> Truth:
    """Everything, as it is now."""
    audits: dict[CellName, Audit] = {}
    parked: dict[CellName, tuple[str, ...]] = {}
    busy: list[str] = []
    records = 0
    for cell in lab.topology.cells:
        config = lab.tree.config(cell.name)
        with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
            if cell.role == API:
                around = Neighbourhood(cell.name, api=True, mute_after=2**62, verify=identity(config).trust.cell_record)
                around.load(unit, system_clock())
                audits[cell.name] = audit_api(cell.name, around.roster, unit)
            else:
                audits[cell.name] = audit_leaf(cell.name, unit)
            if reasons := tuple(f"{row.kind} {row.reason}" for row in unit.all(ParkedRow)):
                parked[cell.name] = reasons
            records += len(unit.all(InboxRow))
            busy += [f"{cell.name} waits for {row.destination}'s acknowledgement" for row in unit.all(OutboxRow)]
            busy += [f"{cell.name} does {row.kind}" for row in unit.all(JobRow) if row.server != NO_SERVER]
    pools = {cell.name: _pool(lab, [pool.name for pool in cell.pools]) for cell in lab.topology.leaves}
    busy += [f"{fact.name} waits: {fact.open}" for audit in audits.values() for fact in audit.owned if fact.open]
    images = _images(door)
    return Truth(
        audits=audits,
        pools=pools,
        parked=parked,
        busy=tuple(busy),
        records=records,
        images={id: image["status"] for id, image in images.items()},
        damaged=tuple(_damaged(door, images.values())),
    )


def _damaged(door: Door, images: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The newest snapshots are fetched and compared with what is said of them."""
    whole = (image for image in images if image["status"] == "active" and image.get("image_type") == "snapshot")
    for image in sorted(whole, key=lambda image: str(image["created_at"]), reverse=True)[:FETCHED]:
        answer = door.fetch(f"/image/v2/images/{image['id']}/file")
        if answer.end is End.INFO:
            raise Temporary(f"image {image['id']} cannot be fetched: {answer.code} {answer.error}")
        yield from differences(image, answer.body if answer.code == 200 else b"")


def differences(image: Mapping[str, Any], data: bytes) -> Iterator[str]:
    """What an image's record says that its data is not."""
    facts = {"size": len(data), "checksum": hashlib.md5(data).hexdigest()}
    facts["os_hash_value"] = hashlib.new(image["os_hash_algo"] or "sha512", data).hexdigest()
    for name, is_so in facts.items():
        if image[name] != is_so:
            yield f"image {image['id']} has {name} {image[name]}, its data {is_so}"


def _images(door: Door) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    path = "/v2/images?limit=1000"
    while path:
        answer = door.ask("GET", path, service="/image")
        assert answer.code == 200, answer
        found |= {image["id"]: image for image in answer.body["images"]}
        path = answer.body.get("next", "")
    return found


def _pool(lab: Lab, pools: list[str]) -> PoolFacts:
    vms: list[VmFact] = []
    loose: list[DiskFact] = []
    for pool in pools:
        access = Access(
            url=f"http://127.0.0.1:{lab.plan.pool_ports[pool]}",
            user="root",
            password=lab.plan.password("xenserver", pool),
        )
        session = connect(access)
        try:
            rows: dict[str, Rows] = {
                name: session.call(f"{name}.get_all_records") for name in ("VM", "VBD", "VDI", "SR")
            }
        finally:
            session.close()
        facts = pool_facts(rows)
        vms += facts.vms
        loose += facts.loose
    return PoolFacts(vms=tuple(vms), loose=tuple(loose))


def pool_facts(rows: Mapping[str, Rows]) -> PoolFacts:
    """What is ours in a pool, from the records of its VMs, VBDs, VDIs and SRs."""
    vms = []
    attached: set[str] = set()
    for vm in rows["VM"].values():
        server = tags.server_of(vm["other_config"])
        if server is None or vm["is_a_template"] or vm["is_a_snapshot"]:
            continue
        vbds = [rows["VBD"][ref] for ref in vm["VBDs"] if ref in rows["VBD"]]
        disks = {vbd["userdevice"]: vbd["VDI"] for vbd in vbds if vbd["VDI"] in rows["VDI"]}
        attached.update(disks.values())
        disks.pop(str(CONFIG_DEVICE), None)  # as large as what the tenant gave
        vms.append(
            VmFact(
                server=server,
                attempt=int(vm["other_config"].get(tags.ATTEMPT, "0")),
                uuid=vm["uuid"],
                kept=vm["name_label"].endswith(tags.ORIGINAL_SUFFIX),
                power=vm["power_state"],
                ram_mib=int(vm["memory_static_max"]) // MIB,
                disks=tuple(int(rows["VDI"][ref]["virtual_size"]) for ref in disks.values()),
            )
        )
    return PoolFacts(vms=tuple(vms), loose=tuple(_loose(rows, attached)))


def _loose(rows: Mapping[str, Rows], attached: set[str]) -> Iterator[DiskFact]:
    """Disks that should not be: no VM has them, and they are no image kept for the next build."""
    for ref, vdi in rows["VDI"].items():
        name, claim = vdi["name_label"], vdi["other_config"].get(tags.CLAIM, "")
        if ref in attached or not vdi["managed"]:
            continue
        if claim:
            yield DiskFact(name=name, server=id_from_text(claim.split()[0], "claim"))
        elif vdi["is_a_snapshot"]:
            yield DiskFact(name=f"snapshot {name}", server=None)
        elif name.startswith(tags.image_name("")):
            storage = rows["SR"][vdi["SR"]]["uuid"]
            if vdi["uuid"] not in tags.image_uuids(storage, name.removeprefix(tags.image_name("")), 1):
                yield DiskFact(name=f"clone {name}", server=None)
