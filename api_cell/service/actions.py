"""Wishes about a server that is there: checked against its state, saved with the next number, left to the daemon."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from api_cell import allowed, backups, quota
from api_cell.errors import Invalid, NotAllowedNow
from api_cell.incremental import bases
from api_cell.restored import next_number
from api_cell.rows import OpenIntent, Phase, ServerRow
from api_cell.service import story
from api_cell.service.api import Api, Caller
from api_cell.service.flavors import flavor_seen
from api_cell.service.secrets import has_agent, kept, needs_config_drive, new_password
from api_cell.service.servers import (
    Access,
    asks_auto_disk_config,
    get,
    ref_of,
    refuse_small,
    usable_image,
    with_access,
)
from api_cell.service.wish import refuse_large, wake_for
from api_cell.status import flavor_of, settle
from cells import codec
from cells.errors import AmbiguousCommit, CelltreeError
from cells.messages import (
    ConfirmResize,
    DeleteServer,
    EvacuateServer,
    InjectNetwork,
    LiveMigrateServer,
    MigrateServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RescueServer,
    ResetNetwork,
    ResizeServer,
    ResumeServer,
    RevertResize,
    SetPassword,
    SnapshotServer,
    StartServer,
    StopServer,
    SuspendServer,
    UnpauseServer,
    UnrescueServer,
    kind_of,
)
from cells.model import BackupMark, Flavor, Incremental, Secrets
from cells.names import id_text
from cells.ports import Unit, View
from cells.rows import StoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks what, of which server, under which request id."""

    caller: Caller
    server: bytes
    request: str


def start(api: Api, asking: Asking) -> None:
    plain(api, asking, "start", StartServer())


def stop(api: Api, asking: Asking) -> None:
    plain(api, asking, "stop", StopServer())


def reboot(api: Api, asking: Asking, *, hard: bool) -> None:
    rule = "server.reboot.hard" if hard else "server.reboot"
    plain(api, asking, "reboot", RebootServer(hard=hard), rule=rule, detail="HARD" if hard else "")


def pause(api: Api, asking: Asking) -> None:
    plain(api, asking, "pause", PauseServer())


def unpause(api: Api, asking: Asking) -> None:
    plain(api, asking, "unpause", UnpauseServer())


def suspend(api: Api, asking: Asking) -> None:
    plain(api, asking, "suspend", SuspendServer())


def resume(api: Api, asking: Asking) -> None:
    plain(api, asking, "resume", ResumeServer())


def migrate(api: Api, asking: Asking, host: str) -> None:
    plain(api, asking, "migrate", MigrateServer(host=host), detail=host)


def live_migrate(api: Api, asking: Asking, host: str, block: bool | None) -> None:
    plain(api, asking, "live-migration", LiveMigrateServer(host=host, block=block), detail=host)


def evacuate(api: Api, asking: Asking, host: str) -> None:
    plain(api, asking, "evacuate", EvacuateServer(host=host), detail=host)


def confirm_resize(api: Api, asking: Asking) -> None:
    plain(api, asking, "confirmResize", ConfirmResize())


def revert_resize(api: Api, asking: Asking) -> None:
    plain(api, asking, "revertResize", RevertResize())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """What a rebuild asks: None leaves things as they are. `given`: what only the leaf may read; `keep_config`: what
    was given earlier is there again."""

    image: str
    name: str | None = None
    description: str | None = None
    metadata: dict[str, str] | None = None
    auto_disk_config: bool | None = None
    access: Access = field(default_factory=Access)
    key_name: str | None = None
    given: Secrets = field(default_factory=Secrets)
    keep_config: bool = True


def rebuild(api: Api, asking: Asking, wanted: Rebuild) -> ServerRow:
    """The server anew from an image. What it is asked to be shows at once, and goes back if the rebuild fails."""
    image = usable_image(api, asking.caller, wanted.image, "rebuild.imageRef")
    ref = ref_of(api, asking.caller, image, "rebuild.imageRef")
    made: list[ServerRow] = []

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, "server.rebuild")
        refuse_small(flavor_of(row), image, "rebuild.imageRef")
        if wanted.key_name not in (None, row.spec.key_name):
            raise Invalid("rebuild.key_name: a server keeps the key pair it was created with; leave it out")
        metadata = row.spec.metadata if wanted.metadata is None else wanted.metadata
        auto = asks_auto_disk_config(wanted.auto_disk_config, ref, row.spec.auto_disk_config)
        name = wanted.name or row.name
        needs = needs_config_drive(wanted.given, ref)
        drive = row.spec.config_drive or needs
        spec = replace(row.spec, image=ref, name=name, metadata=metadata, auto_disk_config=auto, config_drive=drive)
        command = RebuildServer(
            image=ref,
            name=name,
            metadata=metadata,
            auto_disk_config=auto,
            sealed=kept(api, wanted.given) if wanted.given != Secrets() else b"",
            config_drive=drive,
            keep_config=wanted.keep_config and not needs,
        )
        refuse_large(command)
        description = row.description if wanted.description is None else wanted.description
        after = replace(row, name=name, description=description, spec=spec, before_rebuild=row.spec)
        after = with_access(after, wanted.access)
        made[:] = [open_wish(api, unit, asking, line, after, "rebuild", command)]

    wish(api, act)
    return made[0] if made else api.read(lambda unit: get(unit, asking.caller, asking.server))


def rescue(api: Api, asking: Asking, image_id: str, password: str) -> str:
    """Boot a rescue image in the server's place; without one, the image that the server was made from. Gives the
    password that its agent will be told, "" where it has none."""
    row = api.read(lambda unit: may(unit, asking, "server.rescue"))
    image = usable_image(api, asking.caller, image_id or row.spec.image.id, "rescue.rescue_image_ref")
    ref = ref_of(api, asking.caller, image, "rescue.rescue_image_ref")
    if password and not has_agent(ref):
        raise Invalid("rescue.adminPass: the rescue image has no guest agent to set it; leave it out")
    if has_agent(ref) and api.keep is not None:
        password = password or new_password()
    sealed = kept(api, Secrets(admin_password=password)) if password else b""
    command = RescueServer(image=ref, sealed=sealed)
    refuse_large(command)
    plain(api, asking, "rescue", command)
    return password


def unrescue(api: Api, asking: Asking) -> None:
    plain(api, asking, "unrescue", UnrescueServer())


def resize(api: Api, asking: Asking, flavor_id: str, auto_disk_config: bool | None = None) -> None:
    """Room for the larger of both flavors is charged until the resize is confirmed or reverted."""
    found = api.read(lambda unit: flavor_seen(unit, asking.caller, flavor_id))
    if found is None:
        raise Invalid(f"resize.flavorRef: flavor {flavor_id} could not be found; GET /flavors for those there are")

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, "server.resize")
        auto = row.spec.auto_disk_config if auto_disk_config is None else auto_disk_config
        command = ResizeServer(flavor=found.flavor, auto_disk_config=auto)
        _refuse_unfit(flavor_of(row), found.flavor, auto)
        after = replace(row, resize_to=found.flavor, spec=replace(row.spec, auto_disk_config=auto))
        was, will = quota.held(row), quota.held(after)
        usage = quota.usage_of(unit, row.project)
        limits = quota.quota_of(unit, row.project, api.settings.quota)
        more = quota.Held(vcpus=will.vcpus - was.vcpus, ram_mib=will.ram_mib - was.ram_mib)
        quota.refuse_over(usage, limits, more)
        unit.save(quota.charge(usage, row, after))
        open_wish(api, unit, asking, line, after, "resize", command)

    wish(api, act)


def _refuse_unfit(old: Flavor, new: Flavor, auto_disk_config: bool) -> None:
    if new.id == old.id:
        raise Invalid("resize.flavorRef: when resizing, instances must change flavor; choose another one")
    if old.disk_gib and not new.disk_gib:
        raise Invalid("resize.flavorRef: resize to a flavor without a disk of its own is not allowed; choose another")
    if new.disk_gib < old.disk_gib and not auto_disk_config:
        raise Invalid(
            f"resize.flavorRef: a disk shrinks from {old.disk_gib} to {new.disk_gib} GiB only with its file system: "
            "give OS-DCF:diskConfig AUTO, or choose a flavor with at least as much disk"
        )
    if new.ephemeral_gib < old.ephemeral_gib:
        raise Invalid(
            f"resize.flavorRef: ephemeral disks cannot shrink from {old.ephemeral_gib} to {new.ephemeral_gib} GiB; "
            "choose a flavor with at least as much"
        )


def create_image(api: Api, asking: Asking, name: str, properties: dict[str, str]) -> str:
    """Gives the id of the new image, queued until the leaf has uploaded its data."""
    return _image_of(api, asking, "createImage", name, {"image_type": "snapshot", **properties}, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup asked for: how many of its kind are kept, and whether it may hold only what changed since an earlier
    one (None: as the cell is set)."""

    kind: str
    rotation: int
    incremental: bool | None = None


def create_backup(api: Api, asking: Asking, name: str, wanted: Backup, properties: dict[str, str]) -> str:
    """As create_image; once the image is whole, older backups of this kind beyond the rotation are removed."""
    marks = backups.properties(id_text(asking.server), wanted.kind)
    return _image_of(api, asking, "createBackup", name, {**properties, **marks}, wanted)


def _incremental(api: Api, row: ServerRow, wanted: Backup | None) -> Incremental | None:
    settings = api.settings
    if wanted is None or not (settings.incremental_backups if wanted.incremental is None else wanted.incremental):
        return None
    found = api.images.having(backups.of_server(id_text(row.id)))
    return Incremental(bases=bases(found, row.project), most=settings.incrementals_per_full)


def _image_of(
    api: Api, asking: Asking, action: str, name: str, properties: dict[str, str], wanted: Backup | None
) -> str:
    # Looked at first without a lock, so that no image is made for a wish that cannot be; decided below.
    row = api.read(lambda unit: may(unit, asking, "server.snapshot"))
    base = row.spec.image
    incremental = _incremental(api, row, wanted)
    image_id = api.images.create(
        name=name,
        owner=row.project,
        disk_format="vhd",
        container_format="ovf",
        min_disk=flavor_of(row).disk_gib,
        properties={
            **{key: value for key, value in base.properties.items() if key not in tuple(BackupMark)},
            "base_image_ref": base.id,
            "instance_uuid": id_text(asking.server),
            **properties,
        },
    )
    command = SnapshotServer(image=api.images.ref(image_id), incremental=incremental)
    backup = (wanted.kind, wanted.rotation) if wanted is not None else None
    try:
        refuse_large(command)
        # The image's id goes along, so that the role can remove it when no data will come.
        plain(api, asking, action, command, detail=image_id, backup=backup)
    except CelltreeError as error:
        # An image whose wish may have been saved after all stays: the role removes it if the snapshot fails.
        if not isinstance(error, AmbiguousCommit):
            api.images.delete(image_id)
        raise
    return image_id


def delete(api: Api, asking: Asking) -> None:
    """Allowed in any state; overtakes whatever goes on. Asked again while it goes on, it changes nothing."""

    def act(unit: Unit, line: bytes) -> None:
        row = _unlocked(get(unit, asking.caller, asking.server), asking.caller)
        if row.phase is Phase.DELETING:
            return
        command = DeleteServer(build_deadline=row.deadline)
        open_wish(api, unit, asking, line, replace(row, phase=Phase.DELETING), "delete", command)

    wish(api, act)


def change_password(api: Api, asking: Asking, password: str) -> None:
    """The password waits sealed for our own daemon, which seals it for the leaf."""
    plain(api, asking, "changePassword", SetPassword(sealed=kept(api, Secrets(admin_password=password))))


def reset_network(api: Api, asking: Asking) -> None:
    plain(api, asking, "resetNetwork", ResetNetwork())


def inject_network(api: Api, asking: Asking) -> None:
    plain(api, asking, "injectNetworkInfo", InjectNetwork())


# --- the common way of all wishes ---


def plain(
    api: Api,
    asking: Asking,
    action: str,
    command: Any,
    *,
    rule: str = "",
    detail: str = "",
    backup: tuple[str, int] | None = None,
) -> None:
    """A wish that is nothing but its command."""

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, rule or kind_of(command).name)
        open_wish(api, unit, asking, line, row, action, command, detail, backup)

    wish(api, act)


def wish(api: Api, act: Callable[[Unit, bytes], None]) -> None:
    """Do it in one transaction. The id of the story's line is chosen before, and tells whether it was done."""
    line = api.ids()

    def done(unit: View) -> bool | None:
        return True if unit.get(StoryRow, line) is not None else None

    def once(unit: Unit) -> bool:
        act(unit, line)
        return True

    api.change(once, done)
    api.poke()


def may(unit: Unit, asking: Asking, rule: str) -> ServerRow:
    row = _unlocked(get(unit, asking.caller, asking.server), asking.caller)
    allowed.check(row, rule)
    return row


def _unlocked(row: ServerRow, caller: Caller) -> ServerRow:
    if row.locked and not caller.admin:
        raise NotAllowedNow(f"Instance {id_text(row.id)} is locked; unlock it first")
    return row


def open_wish(
    api: Api,
    unit: Unit,
    asking: Asking,
    line: bytes,
    row: ServerRow,
    action: str,
    command: Any,
    detail: str = "",
    backup: tuple[str, int] | None = None,
) -> ServerRow:
    now, request = api.clock(), asking.request
    wish = OpenIntent(
        number=next_number(unit, row),
        action=kind_of(command).name,
        at=now,
        request=request,
        detail=detail,
        backup=backup,
        body=codec.pack(command),
    )
    row = settle(replace(row, number=wish.number, intents=(*row.intents, wish), updated=max(row.updated, now)))
    told = story.asked(api, asking.caller, row, action, request, line)
    unit.save(row, wake_for(api, row, wish, command), told)
    return row
