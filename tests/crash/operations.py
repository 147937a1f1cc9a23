"""What can be asked of a server, each with what it needs first and how its effect is seen: for tests that strike at its
steps. A test sees to it that none is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cells.codec import pack
from cells.messages import (
    AttachVolume,
    ConfirmResize,
    DeleteServer,
    DetachVolume,
    DropHostSnapshot,
    EvacuateServer,
    InjectNetwork,
    LiveMigrateServer,
    MigrateServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RenameServer,
    RescueServer,
    ResetNetwork,
    ResizeServer,
    ResumeServer,
    RevertResize,
    SetMetadata,
    SetPassword,
    SetShares,
    SnapshotServer,
    StartServer,
    StopServer,
    SuspendServer,
    TakeHostSnapshot,
    UnpauseServer,
    UnrescueServer,
)
from cells.model import ImageRef, Incremental, Secrets
from compute_cell.rows import HostRow, HostState, InstanceRow
from tests.support.embedded import IMAGE, SMALL, Tree, make_tree
from tests.support.invariants import validate_quiet
from xenapi_host import tags
from xenapi_host.facts import GIB
from xenapi_host.simulator.mishaps import kill_host
from xenapi_host.simulator.worlds import HostShape

ONE_LEAF = {"east": (), "leaf": ("east",)}
BEHIND_A_RELAY = {"east": (), "middle": ("east",), "leaf": ("middle",)}
AGENT = replace(IMAGE, properties={"xenapi_use_agent": "true"})
SNAP = ImageRef(id="22222222-2222-2222-2222-222222222222", name="snap", url="http://127.0.0.1:9/image")
LATER = ImageRef(id="33333333-3333-3333-3333-333333333333", name="later", url="http://127.0.0.1:9/image")
OTHER = ImageRef(id="44444444-4444-4444-4444-444444444444", name="other", url="http://127.0.0.1:9/image", size=1)
SHARES = {"quota:vcpu_weight": "64", "quota:vcpu_cap": "50"}
Act = Callable[[Tree, bytes], None]


@dataclass(frozen=True)
class Operation:
    """`act` runs it on a tree with a server, ACTIVE if `built`, after what `first` does; `after` is the status then
    (None: gone), `seen` looks for its effect on the host. `kinds`: the messages that it is about."""

    act: Act
    kinds: tuple[type, ...] = ()
    after: str | None = "ACTIVE"
    flavor: str = "m1.tiny"
    built: bool = True
    first: Act | None = None
    seen: Act | None = None
    host: HostShape | None = None


def calm(tree: Tree) -> None:
    """Start again what died, and let everything come to its end; the clock goes on for a minute at most."""
    tree.run(1, step=0.5)
    for name in tree.configs:
        if name not in tree.house.cells:
            tree.restart(name)
    for _ in range(60):
        tree.run(1, step=0.5)
        if all(cell.node.quiet for cell in tree.house.cells.values()):
            break
    tree.run(1, step=0.5)


def a_tree(
    operation: Operation,
    shape: Mapping[str, Sequence[str]] = ONE_LEAF,
    trace: Callable[..., None] | None = None,
    **settings: Any,
) -> Tree:
    """A tree whose leaf has hosts that the operation can be done on."""
    often = {"measure_every": 2.0} if operation.host is not None else {}
    return make_tree(shape, host=operation.host, trace=trace, compute={**often, **settings})


def a_server(operation: Operation, tree: Tree) -> bytes:
    """A server as the operation needs it."""
    server = tree.build("east", "vm", image=AGENT)
    if operation.built:
        tree.run(4)
        validate_quiet(tree)
    if operation.first is not None:
        operation.first(tree, server)
    return server


def _ask(*commands: object) -> Act:
    def act(tree: Tree, server: bytes) -> None:
        for command in commands:
            tree.ask("east", server, command)
            calm(tree)

    return act


def _of(*commands: Any, **more: Any) -> Operation:
    return Operation(act=_ask(*commands), kinds=tuple(type(command) for command in commands), **more)


def _delete_at_once(tree: Tree, server: bytes) -> None:
    tree.settle()
    tree.ask("east", server, DeleteServer(build_deadline=tree.clock.now + 600_000_000))
    calm(tree)


def _vm(tree: Tree, server: bytes) -> dict[str, Any]:
    """The server's VM; a frozen daemon may have made one without disks beside it."""
    (vm,) = [vm for vm in tree.vms("leaf") if vm["name_label"] == tags.vm_name(server) and vm["VBDs"]]
    return vm


# -- volumes --


def _a_volume(tree: Tree, server: bytes) -> None:
    """Beside the server's disk, so that it is in its reach."""
    session = tree.pools["leaf"].login()
    vbd = session.call("VBD.get_record", _vm(tree, server)["VBDs"][0])
    record = session.call("VDI.get_record", vbd["VDI"])
    made = {"name_label": "data", "name_description": "", "SR": record["SR"], "virtual_size": str(GIB), "type": "user"}
    plain = {"sharable": False, "read_only": False, "xenstore_data": {}, "sm_config": {}, "tags": []}
    session.call("VDI.create", {**made, **plain, "other_config": {tags.PROJECT: "demo"}})
    session.close()


def _volume(tree: Tree) -> dict[str, Any]:
    (volume,) = [vdi for vdi in tree.objects("leaf", "VDI") if tags.PROJECT in vdi["other_config"]]
    return volume


def _attach(tree: Tree, server: bytes) -> None:
    _ask(AttachVolume(volume=_volume(tree)["uuid"], device=8))(tree, server)


def _with_a_volume(tree: Tree, server: bytes) -> None:
    _a_volume(tree, server)
    _attach(tree, server)


def _detach(tree: Tree, server: bytes) -> None:
    _ask(DetachVolume(volume=_volume(tree)["uuid"]))(tree, server)


def _attached(devices: list[tuple[str, bool]]) -> Act:
    def look(tree: Tree, server: bytes) -> None:
        volume = _volume(tree)
        found = [vbd for vbd in tree.objects("leaf", "VBD") if vbd["uuid"] and vbd["other_config"].get(tags.VOLUME)]
        assert [(vbd["userdevice"], vbd["currently_attached"]) for vbd in found] == devices
        assert len(volume["VBDs"]) == len(devices)
        row = tree.instance("leaf", server)
        assert row is not None and [(each.id, str(each.device)) for each in row.state.volumes] == [
            (volume["uuid"], device) for device, _ in devices
        ]

    return look


# -- snapshots that stay on the host --


def _snapshots(tree: Tree) -> list[str]:
    return [vm["uuid"] for vm in tree.objects("leaf", "VM") if vm["is_a_snapshot"]]


def _take_and_drop(tree: Tree, server: bytes) -> None:
    _ask(TakeHostSnapshot(name="before"))(tree, server)
    (taken,) = [vm["uuid"] for vm in tree.objects("leaf", "VM") if vm["name_description"] == "before"]
    _ask(DropHostSnapshot(snapshot=taken))(tree, server)


def _no_snapshot(tree: Tree, server: bytes) -> None:
    assert _snapshots(tree) == []


# -- moves --


def _host_dies(tree: Tree, server: bytes) -> None:
    """The server goes to the host that is not the pool's master, and that one dies, and is said to be dead."""
    instance, here = _row(tree, server), tree.objects("leaf", "host")
    if instance.host == here[0]["uuid"]:
        _ask(LiveMigrateServer())(tree, server)
        instance = _row(tree, server)
    pool = tree.pools["leaf"]
    kill_host(pool.engine, pool.engine.call("host.get_by_uuid", [pool.login().ref, instance.host]))
    tree.run(4)
    with tree.stores["leaf"].inner.unit() as unit:
        host = unit.get(HostRow, instance.host)
        assert host is not None and host.state is HostState.DOWN
        unit.save(replace(host, state=HostState.DEAD))


def _row(tree: Tree, server: bytes) -> InstanceRow:
    row = tree.instance("leaf", server)
    assert row is not None
    return row


# -- what guests and hosts are told --


def _password(tree: Tree, server: bytes) -> None:
    kept = tree["east"].role.front.keep(pack(Secrets(admin_password="open sesame")))  # type: ignore[attr-defined]
    _ask(SetPassword(sealed=kept))(tree, server)


def _password_is_set(tree: Tree, server: bytes) -> None:
    assert list(tree.guests["leaf"].passwords.values()) == ["open sesame"]


def _shows(**fields: Any) -> Act:
    def look(tree: Tree, server: bytes) -> None:
        vm = _vm(tree, server)
        assert {name: vm[name] for name in fields} == fields

    return look


def _metadata_is_there(tree: Tree, server: bytes) -> None:
    found = {key: value for key, value in _vm(tree, server)["xenstore_data"].items() if "user-metadata" in key}
    assert found == {"vm-data/user-metadata/color": '"blue"'}


def _made_of(image: ImageRef) -> Act:
    def look(tree: Tree, server: bytes) -> None:
        assert _vm(tree, server)["other_config"][tags.IMAGE] == image.id

    return look


OPERATIONS = {
    "build": Operation(act=lambda tree, server: calm(tree), built=False),
    "build, delete at once": Operation(act=_delete_at_once, after=None, built=False),
    "snapshot": _of(SnapshotServer(image=SNAP)),
    "backup, incremental backup": _of(
        SnapshotServer(image=SNAP, incremental=Incremental()),
        SnapshotServer(image=LATER, incremental=Incremental(bases=(SNAP.id,))),
    ),
    "stop": _of(StopServer(), after="SHUTOFF"),
    "start": _of(StartServer(), first=_ask(StopServer())),
    "reboot": _of(RebootServer()),
    "hard reboot": _of(RebootServer(hard=True)),
    "pause": _of(PauseServer(), after="PAUSED"),
    "unpause": _of(UnpauseServer(), first=_ask(PauseServer())),
    "suspend": _of(SuspendServer(), after="SUSPENDED"),
    "resume": _of(ResumeServer(), first=_ask(SuspendServer())),
    "resize, confirm": _of(ResizeServer(flavor=SMALL), ConfirmResize(), flavor="m1.small"),
    "resize, revert": _of(ResizeServer(flavor=SMALL), RevertResize()),
    "migrate, confirm": _of(MigrateServer(), ConfirmResize()),
    "live migrate": _of(LiveMigrateServer()),
    "evacuate with its disk": Operation(
        act=_ask(EvacuateServer()),
        kinds=(EvacuateServer,),
        first=_host_dies,
        host=HostShape(cpu_objects=False, sr_type="nfs"),
    ),
    "rebuild": _of(RebuildServer(image=OTHER), seen=_made_of(OTHER)),
    "rescue, unrescue": _of(RescueServer(image=OTHER), UnrescueServer(), seen=_made_of(IMAGE)),
    "attach a volume": Operation(act=_attach, kinds=(AttachVolume,), first=_a_volume, seen=_attached([("8", True)])),
    "detach a volume": Operation(act=_detach, kinds=(DetachVolume,), first=_with_a_volume, seen=_attached([])),
    "take and drop a snapshot on the host": Operation(
        act=_take_and_drop, kinds=(TakeHostSnapshot, DropHostSnapshot), seen=_no_snapshot
    ),
    "set the password": Operation(act=_password, kinds=(SetPassword,), seen=_password_is_set),
    "set metadata": _of(SetMetadata(metadata={"color": "blue"}), seen=_metadata_is_there),
    "reset the network": _of(InjectNetwork(), ResetNetwork()),
    "rename": _of(RenameServer(name="new"), seen=_shows(name_description="new")),
    "set shares": _of(SetShares(shares=SHARES), seen=_shows(VCPUs_params={"weight": "64", "cap": "50"})),
    "delete": _of(DeleteServer(build_deadline=0), after=None),
}

# Those that are struck at the brokers' steps and at a relay too.
OVER_THE_BROKERS = {
    **{name: OPERATIONS[name] for name in ("build", "snapshot", "delete")},
    "resize": _of(ResizeServer(flavor=SMALL), after="VERIFY_RESIZE", flavor="m1.small"),
}
