"""Servers as their tenants ask for them and look at them: create, find, list, rename, metadata and tags."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from api_cell import allowed, backlog, quota
from api_cell.errors import Forbidden, Invalid, NotFound
from api_cell.images import Image, visible
from api_cell.incremental import parts_of
from api_cell.restored import next_number
from api_cell.rows import (
    BUILD_NUMBER,
    GoneServerRow,
    KeyPairRow,
    OpenIntent,
    Phase,
    QuotaRow,
    RequestRow,
    SecretRow,
    ServerRow,
)
from api_cell.service import story
from api_cell.service.api import Api, Caller
from api_cell.service.flavors import flavor_seen
from api_cell.service.secrets import kept, needs_config_drive
from api_cell.service.wish import refuse_large, wake_for
from api_cell.status import settle
from cells import codec
from cells.messages import RenameServer, SetMetadata, kind_of
from cells.model import BuildSpec, ClassicGuest, Flavor, ImageRef, Secrets
from cells.names import SECOND, Instant, id_text
from cells.ports import After, Unit, View, Where
from routing.demand import demand_of

MOST_TAGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The addresses that a server is reached by, as its tenant says: nobody here looks at them. None: as it is, ""
    none."""

    v4: str | None = None
    v6: str | None = None


def with_access(row: ServerRow, access: Access) -> ServerRow:
    """The server with the addresses that were given."""
    return replace(
        row,
        access_ipv4=row.access_ipv4 if access.v4 is None else access.v4,
        access_ipv6=row.access_ipv6 if access.v6 is None else access.v6,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServer:
    """What a tenant asks for, in well-formed values; whether they exist is not checked yet. `least` and `most`: how
    many servers alike; fewer than `most` come where the quota ends. `classic`: the guest whose disk it gets;
    `image` is then the kit that goes on top."""

    name: str
    flavor: str
    image: str
    metadata: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    zone: str = ""
    key_name: str = ""
    config_drive: bool = False
    auto_disk_config: bool | None = None
    password: str = field(default="", repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    user_data: bytes = field(default=b"", repr=False)
    description: str = ""
    tags: tuple[str, ...] = ()
    access: Access = Access()
    least: int = 1
    most: int = 1
    classic: ClassicGuest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which servers a list is about. `changed_since`: also deleted ones. `after`: the id of the last server seen.
    Text conditions are SQL LIKE patterns (`name`) or exact values."""

    project: str | None
    name: str = ""
    statuses: tuple[str, ...] = ()
    image: str = ""
    flavor: str = ""
    user: str = ""
    leaf: str = ""
    ids: tuple[bytes, ...] = ()
    vm_state: str = ""
    task_state: str | None = None
    changed_since: Instant | None = None
    changed_before: Instant | None = None
    deleted: bool = False
    order: str = "created"
    descending: bool = True
    after: bytes | None = None
    limit: int = 1000


def create(api: Api, caller: Caller, new: NewServer, request: str, once: str = "") -> tuple[ServerRow, ...]:
    """Save the wish for some servers alike, and have them placed. `once`: a key of the client's own for this request;
    the same key again gives the server it made the first time."""
    image = usable_image(api, caller, new.image, "server.imageRef")
    ref = ref_of(api, caller, image, "server.imageRef")
    spec, limits = api.read(lambda unit: _asked_for(api, unit, caller, new, image, ref))
    _refuse_kit(spec)
    refuse_large(spec)
    given = given_with(new)
    secret = kept(api, given) if given != Secrets() else b""
    demand_of(spec)  # Refuses a flavor or image whose demands no leaf could understand.
    # Made before the transaction, so that trying again makes the same servers.
    names = [new.name] if new.most == 1 else [f"{new.name}-{n}" for n in range(1, new.most + 1)]
    wished = [replace(_placing(api, spec, new, name, request), secret=bool(secret)) for name in names]

    def act(unit: Unit) -> tuple[ServerRow, ...]:
        if once and (asked := unit.get(RequestRow, once)) is not None:
            return _made_before(unit, asked)
        # The usage is read under a lock: it is what all creations of a project wait for, so nothing else is.
        usage = quota.usage_of(unit, caller.project)
        most = backlog.room_for(unit, api.settings.limits, caller.project, new.least, new.most)
        count = quota.room_for(usage, limits, spec.flavor, most)
        if count < new.least:
            quota.refuse_over(usage, limits, quota.held_by(spec.flavor, new.least))
        rows = tuple(wished[:count])
        for row in rows:
            usage = quota.charge(usage, None, row)
            unit.save(wake_for(api, row, row.intents[-1]), story.asked(api, caller, row, "create", request))
            if secret:
                unit.save(SecretRow(server=row.id, box=secret))
        unit.save(usage, *rows)
        if once:
            unit.insert(RequestRow(id=once, server=rows[0].id, at=rows[0].created))
        return rows

    def landed(unit: View) -> tuple[ServerRow, ...] | None:
        found = unit.get_many(ServerRow, [(row.id,) for row in wished])
        return tuple(found.values()) or None

    rows = api.change(act, landed)
    api.poke()
    return rows


def _refuse_kit(spec: BuildSpec) -> None:
    """A kit for classic guests serves them only, and they need one."""
    is_kit = spec.image.properties.get("classic_kit", "").lower() in ("true", "1", "yes", "on")
    if spec.classic is None and is_kit:
        raise Invalid(f"server.imageRef: image {spec.image.id} is a kit for classic guests, not a disk; choose another")
    if spec.classic is not None and not is_kit:
        raise Invalid(
            f"imageRef: image {spec.image.id} is no kit for classic guests; upload a tar.gz with kernel, ramdisk and "
            "agent and give it the property classic_kit=true"
        )
    if spec.classic is not None and not spec.flavor.disk_gib:
        raise Invalid(f"flavorRef: flavor {spec.flavor.name} has no disk; a classic guest needs one for its files")


def usable_image(api: Api, caller: Caller, image_id: str, field: str) -> Image:
    """An image that the caller may build from; Invalid names the field it was asked in."""
    image = api.images.get(image_id)
    if image is None or not (visible(image, caller.project, admin=caller.admin) or _is_shared(api, caller, image)):
        raise Invalid(f"{field}: can not find requested image {image_id}; GET the image list for those there are")
    if image.status != "active":
        raise Invalid(f"{field}: image {image.id} is {image.status}, not active; wait until its data is uploaded")
    return image


def _is_shared(api: Api, caller: Caller, image: Image) -> bool:
    return image.visibility == "shared" and api.images.is_member(image.id, caller.project)


def ref_of(api: Api, caller: Caller, image: Image, field: str) -> ImageRef:
    """The image as a leaf needs it, with all that it builds upon."""
    parts = parts_of(image, api.images.get, caller.project, field, admin=caller.admin)
    return replace(api.images.ref(image.id), parents=parts)


def asks_auto_disk_config(asked: bool | None, image: ImageRef, otherwise: bool = False) -> bool:
    """Whether the disk follows the flavor: as asked, else as the image says. An image may forbid it."""
    said = image.properties.get("auto_disk_config", "").lower()
    if asked and said == "disabled":
        raise Invalid("OS-DCF:diskConfig: the image says that its disk must not be changed; use MANUAL")
    if asked is not None:
        return asked
    return said in ("true", "1", "yes", "on") if said else otherwise


def _asked_for(
    api: Api, unit: View, caller: Caller, new: NewServer, image: Image, ref: ImageRef
) -> tuple[BuildSpec, QuotaRow]:
    """What a leaf will be told, and what the project may have."""
    spec = BuildSpec(
        name=new.name,
        project=caller.project,
        user=caller.user,
        flavor=_flavor_for(unit, caller, new, image),
        image=ref,
        metadata=new.metadata,
        hints=new.hints,
        zone=new.zone,
        key_name=new.key_name,
        public_key=_public_key(unit, caller.user, new.key_name),
        config_drive=new.config_drive or needs_config_drive(given_with(new), ref),
        auto_disk_config=asks_auto_disk_config(new.auto_disk_config, ref),
        classic=new.classic,
    )
    return spec, quota.quota_of(unit, caller.project, api.settings.quota)


def given_with(new: NewServer) -> Secrets:
    """What only the leaf may read of it."""
    return Secrets(admin_password=new.password, files=new.files, user_data=new.user_data)


def _made_before(unit: View, asked: RequestRow) -> tuple[ServerRow, ...]:
    made = unit.get(ServerRow, asked.server)
    if made is None:
        raise NotFound("This request was made before, and the server it made has been deleted since")
    return (made,)


def _flavor_for(unit: View, caller: Caller, new: NewServer, image: Image) -> Flavor:
    found = flavor_seen(unit, caller, new.flavor)
    if found is None:
        raise Invalid(f"server.flavorRef: flavor {new.flavor} could not be found; GET /flavors for those there are")
    refuse_small(found.flavor, image, "server.flavorRef")
    return found.flavor


def refuse_small(flavor: Flavor, image: Image, field: str) -> None:
    """Invalid when a flavor is too small for an image."""
    if image.min_ram > flavor.ram_mib:
        raise Invalid(
            f"{field}: flavor's memory is too small for requested image: {flavor.ram_mib} MiB, "
            f"and image {image.id} needs {image.min_ram} MiB; choose a larger flavor"
        )
    if image.min_disk > flavor.disk_gib:
        raise Invalid(
            f"{field}: flavor's disk is too small for requested image: {flavor.disk_gib} GiB, "
            f"and image {image.id} needs {image.min_disk} GiB; choose a larger flavor"
        )


def _public_key(unit: View, user: str, name: str) -> str:
    if not name:
        return ""
    pair = unit.get(KeyPairRow, user, name)
    if pair is None:
        raise Invalid(f"server.key_name: invalid key_name provided: no key pair {name!r}; create it under /os-keypairs")
    return pair.public_key


def _placing(api: Api, spec: BuildSpec, new: NewServer, name: str, request: str) -> ServerRow:
    now = api.clock()
    return settle(
        ServerRow(
            id=api.ids(),
            project=spec.project,
            user=spec.user,
            name=name,
            created=now,
            updated=now,
            request=request,
            status="",
            vm_state="",
            phase=Phase.PLACING,
            number=BUILD_NUMBER,
            deadline=now + api.settings.build_time * SECOND,
            spec=replace(spec, name=name),
            intents=(OpenIntent(number=BUILD_NUMBER, action="place", at=now, request=request),),
            description=new.description,
            tags=new.tags,
            access_ipv4=new.access.v4 or "",
            access_ipv6=new.access.v6 or "",
        )
    )


def get(view: View, caller: Caller, server: bytes) -> ServerRow:
    """The caller's server; NotFound when it is another project's."""
    row = view.get(ServerRow, server)
    if row is None or not (caller.admin or row.project == caller.project):
        raise NotFound(f"Instance {_text(server)} could not be found.")
    return row


def show(api: Api, caller: Caller, server: bytes) -> ServerRow:
    """The caller's server."""
    return api.read(lambda unit: get(unit, caller, server))


def find(api: Api, wanted: Wanted) -> tuple[ServerRow, ...]:
    """The servers wanted, newest first or as ordered, at most one page. Deleted ones are among them where `deleted` or
    `changed_since` asks for them; then the order is by id, which is the order of creation."""

    def act(unit: Unit) -> tuple[ServerRow, ...]:
        if wanted.deleted:
            return _gone(unit, wanted)
        if wanted.changed_since is None:
            return _living(unit, wanted, _columns(wanted))
        both = (*_living(unit, wanted, ("id",)), *_gone(unit, wanted))
        return tuple(sorted(both, key=lambda row: row.id, reverse=wanted.descending)[: wanted.limit])

    return api.read(act)


def _columns(wanted: Wanted) -> tuple[str, ...]:
    """What to sort by so that an index gives the order. Ids grow with time, so over all projects they stand for the
    time of creation: MariaDB would sort the whole table rather than read a second index along it."""
    if wanted.order == "id" or (wanted.order == "created" and wanted.project is None):
        return ("id",)
    return (wanted.order, "id")


def _living(unit: View, wanted: Wanted, order: tuple[str, ...]) -> tuple[ServerRow, ...]:
    after = None
    if wanted.after is not None:
        # Another project's is as if it were not there: its place among one's own would tell its name, letter by letter.
        last = unit.get(ServerRow, wanted.after)
        if last is not None and wanted.project in (None, last.project):
            after = After(values=tuple(getattr(last, column) for column in order))
        elif order == ("id",):
            after = After(values=(wanted.after,))
        else:
            # The last one seen was deleted meanwhile; an id tells when it was made, to the millisecond.
            gone = unit.get(GoneServerRow, wanted.after)
            if gone is None or wanted.project not in (None, gone.project):
                raise Invalid(f"marker [{_text(wanted.after)}] not found; begin again without a marker")
            after = After(values=tuple(getattr(gone.server, column) for column in order))
    return unit.find(
        ServerRow,
        *_conditions(wanted),
        order=order,
        descending=wanted.descending,
        after=after,
        limit=wanted.limit,
    )


def _conditions(wanted: Wanted) -> list[Where]:
    where: list[Where] = []
    exact: Sequence[tuple[str, str | None]] = (
        ("project", wanted.project),
        ("image", wanted.image or None),
        ("flavor", wanted.flavor or None),
        ("user", wanted.user or None),
        ("leaf", wanted.leaf or None),
        ("vm_state", wanted.vm_state or None),
        ("task_state", wanted.task_state),
    )
    where.extend(Where(column=column, op="=", value=value) for column, value in exact if value is not None)
    if wanted.name:
        where.append(Where(column="name", op="like", value=wanted.name))
    if wanted.statuses:
        where.append(Where(column="status", op="in", value=wanted.statuses))
    if wanted.ids:
        where.append(Where(column="id", op="in", value=wanted.ids))
    if wanted.changed_since is not None:
        where.append(Where(column="updated", op=">=", value=wanted.changed_since))
    if wanted.changed_before is not None:
        where.append(Where(column="updated", op="<=", value=wanted.changed_before))
    return where


_SCAN = 500


def _gone(unit: View, wanted: Wanted) -> tuple[ServerRow, ...]:
    """Deleted servers, by id. Most columns are inside the row, so conditions are looked at here, some at a time."""
    where: list[Where] = [] if wanted.project is None else [Where(column="project", op="=", value=wanted.project)]
    if wanted.changed_since is not None:
        where.append(Where(column="updated", op=">=", value=wanted.changed_since))
    found: list[ServerRow] = []
    after = None if wanted.after is None else After(values=(wanted.after,))
    while len(found) < wanted.limit:
        some = unit.find(GoneServerRow, *where, order=("id",), descending=wanted.descending, after=after, limit=_SCAN)
        found.extend(row.server for row in some if _meets(row, wanted))
        if len(some) < _SCAN:
            break
        after = After(values=(some[-1].id,))
    return tuple(found[: wanted.limit])


def _meets(gone: GoneServerRow, wanted: Wanted) -> bool:
    row = gone.server
    return (
        (not wanted.image or row.image == wanted.image)
        and (not wanted.flavor or row.flavor == wanted.flavor)
        and (not wanted.user or row.user == wanted.user)
        and (not wanted.ids or row.id in wanted.ids)
        and (not wanted.statuses or "DELETED" in wanted.statuses or row.status in wanted.statuses)
        and (not wanted.name or like(wanted.name, row.name))
        and (wanted.changed_before is None or gone.updated <= wanted.changed_before)
    )


def like(pattern: str, text: str) -> bool:
    """SQL's LIKE with backslash as its escape, without regard to case."""
    # Runs of characters between the %; None stands for any one character. Each run is taken at the first place
    # it fits, which is enough and cannot take long, unlike a regular expression.
    runs: list[list[str | None]] = [[]]
    chars = iter(pattern.lower())
    for char in chars:
        if char == "%":
            runs.append([])
        else:
            runs[-1].append(None if char == "_" else next(chars, "") if char == "\\" else char)
    text = text.lower()
    if len(runs) == 1:
        return len(text) == len(runs[0]) and _fits(runs[0], text, 0)
    at, end = len(runs[0]), len(text) - len(runs[-1])
    if at > end or not _fits(runs[0], text, 0) or not _fits(runs[-1], text, end):
        return False
    for run in runs[1:-1]:
        place = next((n for n in range(at, end - len(run) + 1) if _fits(run, text, n)), None)
        if place is None:
            return False
        at = place + len(run)
    return True


def _fits(run: list[str | None], text: str, at: int) -> bool:
    return all(wanted is None or wanted == text[at + n] for n, wanted in enumerate(run))


def update(
    api: Api,
    caller: Caller,
    server: bytes,
    *,
    name: str | None = None,
    description: str | None = None,
    auto_disk_config: bool | None = None,
    access: Access = Access(),
) -> ServerRow:
    """Rename or describe a server; what is None stays as it is."""

    def act(unit: Unit) -> ServerRow:
        before = get(unit, caller, server)
        row = with_access(before, access)
        if name is not None:
            row = replace(row, name=name, spec=replace(row.spec, name=name))
        if description is not None:
            row = replace(row, description=description)
        if auto_disk_config is not None:
            auto = asks_auto_disk_config(auto_disk_config, row.spec.image)
            row = replace(row, spec=replace(row.spec, auto_disk_config=auto))
        return _saved(api, unit, row) if row.name == before.name else _told(api, unit, row, RenameServer(name=row.name))

    row = api.change(act)
    api.poke()
    return row


def put_metadata(api: Api, caller: Caller, server: bytes, items: dict[str, str], *, keep: bool) -> dict[str, str]:
    """Set metadata; `keep` what is there under other keys."""

    def act(unit: Unit) -> dict[str, str]:
        row = get(unit, caller, server)
        allowed.check(row, "metadata")
        metadata = {**row.spec.metadata, **items} if keep else items
        if len(metadata) > api.settings.most_metadata:
            raise Forbidden(
                f"metadata: a server may have {api.settings.most_metadata} items, this would make {len(metadata)}; "
                "delete some first"
            )
        _told(api, unit, replace(row, spec=replace(row.spec, metadata=metadata)), SetMetadata(metadata=metadata))
        return metadata

    metadata = api.change(act)
    api.poke()
    return metadata


def drop_metadata(api: Api, caller: Caller, server: bytes, key: str) -> None:
    """Delete one metadata item."""

    def act(unit: Unit) -> None:
        row = get(unit, caller, server)
        allowed.check(row, "metadata")
        if key not in row.spec.metadata:
            raise NotFound(f"Metadata item {key} was not found on instance {_text(server)}")
        left = {name: value for name, value in row.spec.metadata.items() if name != key}
        _told(api, unit, replace(row, spec=replace(row.spec, metadata=left)), SetMetadata(metadata=left))

    api.change(act)
    api.poke()


def add_tag(api: Api, caller: Caller, server: bytes, tag: str) -> bool:
    """Add a tag; False when it is there already."""

    def act(unit: Unit) -> bool:
        row = get(unit, caller, server)
        if tag in row.tags:
            return False
        if len(row.tags) >= MOST_TAGS:
            raise Invalid(f"tags: a server may have {MOST_TAGS}, and has them; delete some first")
        _saved(api, unit, replace(row, tags=(*row.tags, tag)))
        return True

    return api.change(act)


def drop_tag(api: Api, caller: Caller, server: bytes, tag: str) -> None:
    """Delete one tag."""

    def act(unit: Unit) -> None:
        row = get(unit, caller, server)
        if tag not in row.tags:
            raise NotFound(f"Server {_text(server)} has no tag '{tag}'")
        _saved(api, unit, replace(row, tags=tuple(each for each in row.tags if each != tag)))

    api.change(act)


def put_tags(api: Api, caller: Caller, server: bytes, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Set all of a server's tags."""

    def act(unit: Unit) -> tuple[str, ...]:
        return _saved(api, unit, replace(get(unit, caller, server), tags=tags)).tags

    return api.change(act)


def lock(api: Api, caller: Caller, server: bytes, locked: bool) -> None:
    """While locked, only an administrator may act on it."""
    api.change(lambda unit: _saved(api, unit, replace(get(unit, caller, server), locked=locked)))


def _saved(api: Api, unit: Unit, row: ServerRow) -> ServerRow:
    row = replace(row, updated=max(row.updated, api.clock()))
    unit.save(row)
    return row


def _told(api: Api, unit: Unit, row: ServerRow, command: SetMetadata | RenameServer) -> ServerRow:
    """Save what is new, and have the leaf told, in its turn among the server's other wishes. A server that no leaf has
    been asked for yet is offered as it is now."""
    if row.phase not in (Phase.OFFERED, Phase.GRANTED) or not row.leaf:
        return _saved(api, unit, row)
    now = api.clock()
    wish = OpenIntent(
        number=next_number(unit, row),
        action=kind_of(command).name,
        at=now,
        request=row.request,
        body=codec.pack(command),
    )
    row = settle(replace(row, number=wish.number, intents=(*row.intents, wish)))
    row = _saved(api, unit, row)
    unit.save(wake_for(api, row, wish, command))
    return row


def _text(server: bytes) -> str:
    return server.hex() if len(server) != 16 else id_text(server)
