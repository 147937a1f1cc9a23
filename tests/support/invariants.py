"""What must be so in every tree: at any moment (`validate`), and when all has come to rest (`validate_quiet`)."""

from collections import Counter, defaultdict
from typing import Any

from api_cell.rows import Phase as ApiPhase
from api_cell.rows import ServerRow, UsageRow
from cells.model import PowerState, VmState
from cells.names import id_from_text, id_text
from cells.rows import JobRow, OutboxRow
from compute_cell.build import claims, never_ran
from compute_cell.rows import GroupRow, HostRow, InstanceRow, Phase
from routing.demand import room_of
from tests.support.embedded import Tree
from xenapi_host import tags


def validate(tree: Tree, *, versions: bool = True, rows: bool = True) -> None:
    """At every step: one started VM of a server at most, exact claims, no view ahead of the truth. `versions=False`
    where a test has tampered with a view, `rows=False` where it has put a database back to a backup."""
    wrong = [*_started_twice(tree), *(_without_a_row(tree) if rows else ())]
    for leaf in tree.pools:
        wrong += _claims(tree, leaf)
    if versions:
        wrong += _ahead(tree)
    assert not wrong, "\n".join(wrong)


def validate_quiet(tree: Tree) -> None:
    """After quiet: views equal the truth, truth equals the hosts, nothing is left over or on its way."""
    validate(tree)
    wrong: list[str] = []
    for name in tree.configs:
        wrong += [f"{name}: {row!r} is not acknowledged" for row in tree.rows(name, OutboxRow)]
        wrong += [f"{name}: job {row.kind} is not over" for row in tree.rows(name, JobRow)]
    for api in tree.apis:
        wrong += _views(tree, api) + _usage(tree, api)
    for leaf in tree.pools:
        wrong += _hosts(tree, leaf) + _disks(tree, leaf)
    assert not wrong, "\n".join(wrong)


def server_of(vm: dict[str, Any]) -> bytes | None:
    return tags.server_of(vm["other_config"])


def _started_twice(tree: Tree) -> list[str]:
    started: dict[bytes, list[str]] = defaultdict(list)
    for leaf in tree.pools:
        for vm in tree.vms(leaf):
            server = server_of(vm)
            if server is not None and vm["power_state"] != PowerState.HALTED:
                started[server].append(f"{vm['name_label']} at {leaf}")
    return [f"two started VMs of {id_text(server)}: {where}" for server, where in started.items() if len(where) > 1]


def _without_a_row(tree: Tree) -> list[str]:
    wrong = []
    for leaf in tree.pools:
        held = {row.id for row in tree.rows(leaf, InstanceRow) if row.phase is not Phase.GONE}
        wrong += [
            f"{leaf} has VM {vm['name_label']} and no row for it" for vm in tree.vms(leaf) if server_of(vm) not in held
        ]
    return wrong


def _claims(tree: Tree, leaf: str) -> list[str]:
    """What is free is what there is without the claims, on every host and storage group."""
    ram: Counter[str] = Counter()
    vcpus: Counter[str] = Counter()
    disk: Counter[str] = Counter()
    hosts = {host.uuid: host for host in tree.rows(leaf, HostRow)}
    groups = {group.name: group for group in tree.rows(leaf, GroupRow)}
    for instance in tree.rows(leaf, InstanceRow):
        if instance.phase is Phase.GONE:
            continue
        for uuid, flavor in claims(instance):
            room = room_of(flavor)
            ram[uuid] += room.ram_mib
            vcpus[uuid] += room.vcpus
            disk[hosts[uuid].group or uuid] += room.disk_gib
    wrong = []
    for host in hosts.values():
        for what, free, total, claimed in (
            ("RAM", host.free_ram_mib, host.ram_mib, ram[host.uuid]),
            ("vCPUs", host.free_vcpus, host.vcpus, vcpus[host.uuid]),
            *((("disk", host.free_disk_gib, host.disk_gib, disk[host.uuid]),) if not host.group else ()),
        ):
            if free != total - claimed or free < 0:
                wrong.append(f"{leaf} {host.name}: {what} free {free}, total {total}, claimed {claimed}")
    for group in groups.values():
        free = group.disk_gib - disk[group.name]
        if group.free_disk_gib != free or free < 0:
            wrong.append(f"{leaf} group {group.name}: disk free {group.free_disk_gib}, should be {free}")
    return wrong


def _ahead(tree: Tree) -> list[str]:
    wrong = []
    for api in tree.apis:
        for row in tree.rows(api, ServerRow):
            instance = tree.instance(row.leaf, row.id) if row.leaf in tree.pools else None
            if instance is not None and instance.attempt == row.attempt and row.version > instance.version:
                wrong.append(f"{api} has {row.name} at version {row.version}, its leaf at {instance.version}")
    return wrong


def _views(tree: Tree, api: str) -> list[str]:
    wrong = []
    for row in tree.rows(api, ServerRow):
        if row.phase is ApiPhase.FAILED:
            if not row.fault:
                wrong.append(f"{row.name} failed without a reason")
            continue
        if row.phase is not ApiPhase.GRANTED:
            wrong.append(f"{row.name} is still {row.phase}")
            continue
        instance = tree.instance(row.leaf, row.id)
        if instance is None:
            wrong.append(f"{row.name} is not at {row.leaf}")
        elif (instance.version, instance.state, instance.attempt) != (row.version, row.state, row.attempt):
            wrong.append(f"{row.name}: view {row.version} {row.state}, truth {instance.version} {instance.state}")
        if row.intents:
            wrong.append(f"{row.name} has open wishes: {row.intents}")
    return wrong


def _usage(tree: Tree, api: str) -> list[str]:
    """Quota usage is the count of live rows. A resize that waits is charged by the front door, not by Tree.ask."""
    counted = Counter(row.project for row in tree.rows(api, ServerRow))
    used = {usage.project: usage.servers for usage in tree.rows(api, UsageRow)}
    return [
        f"{api}: project {name} uses {used.get(name, 0)} servers, has {counted[name]}"
        for name in used.keys() | counted.keys()
        if used.get(name, 0) != counted[name]
    ]


def _hosts(tree: Tree, leaf: str) -> list[str]:
    """Each instance has the VMs it should have, in the state and on the host it says."""
    wrong = []
    vms: dict[bytes | None, list[dict[str, Any]]] = defaultdict(list)
    for vm in tree.vms(leaf):
        vms[server_of(vm)].append(vm)
    names = {host["uuid"]: host for host in tree.objects(leaf, "host")}
    session = tree.pools[leaf].login()
    for row in tree.rows(leaf, InstanceRow):
        here = f"{leaf} {row.spec.name} ({row.phase}, {row.state.vm_state})"
        its = vms[row.id]
        if row.phase is Phase.GONE or never_ran(row):
            if its:
                wrong.append(f"{here} still has {len(its)} VMs")
            continue
        if row.phase is not Phase.GRANTED:
            wrong.append(f"{here} is half-way")
            continue
        wanted = 2 if row.state.vm_state is VmState.RESIZED else 1
        if len(its) != wanted:
            wrong.append(f"{here} has {len(its)} VMs, not {wanted}")
            continue
        new = [vm for vm in its if not vm["name_label"].endswith(tags.ORIGINAL_SUFFIX)]
        if len(new) != 1 or new[0]["power_state"] != row.state.power_state:
            wrong.append(f"{here} is {[vm['power_state'] for vm in new]}, its row says {row.state.power_state}")
        elif row.state.power_state is PowerState.RUNNING:
            at = session.call("host.get_uuid", new[0]["resident_on"])
            if at != row.host:
                wrong.append(f"{here} runs on {names[at]['name_label']}, its claim is elsewhere")
        if tags.ORIGINAL in new[0]["other_config"]:
            wrong.append(f"{here} is marked as an original still")
        if len(new) == 1 and int(new[0]["memory_static_max"]) != row.state.flavor.ram_mib << 20:
            wrong.append(f"{here} has {new[0]['memory_static_max']} bytes of memory, flavor {row.state.flavor.name}")
    session.close()
    return wrong


def _disks(tree: Tree, leaf: str) -> list[str]:
    """No disk that belongs to nobody: each is a cached image or hangs on one VM of ours."""
    wrong = []
    alive = {row.id: row for row in tree.rows(leaf, InstanceRow) if row.phase is Phase.GRANTED and not never_ran(row)}
    for vdi in tree.objects(leaf, "VDI"):
        claim = vdi["other_config"].get(tags.CLAIM, "")
        name = vdi["name_label"]
        if vdi["is_a_snapshot"]:
            if tags.BACKUP in vdi["other_config"] and id_from_text(claim.split()[0]) in alive:
                continue  # the base of the server's next backup
            wrong.append(f"{leaf}: snapshot {name} is left")
        elif claim and (id_from_text(claim.split()[0]) not in alive or not vdi["VBDs"]):
            wrong.append(f"{leaf}: disk {name} of {claim} is left")
        elif name.startswith("celltree image") and not claim:
            session = tree.pools[leaf].login()
            storage = session.call("SR.get_uuid", vdi["SR"])
            session.close()
            if vdi["uuid"] not in tags.image_uuids(storage, name.removeprefix("celltree image "), 1) and vdi["managed"]:
                wrong.append(f"{leaf}: clone {name} is claimed by nobody")
    return wrong
