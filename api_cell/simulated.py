"""The front door without HTTP, for simulations: the same service functions that REST calls, over images in memory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from api_cell.front import FIRST_FLAVORS, seed_flavors
from api_cell.images import Image, having, ref_to
from api_cell.restored import put_back
from api_cell.role import ApiRole
from api_cell.rows import FlavorRow, Phase, ServerRow
from api_cell.service import actions, quota, servers
from api_cell.service.actions import Asking
from api_cell.service.api import Api, Caller
from api_cell.settings import Settings
from api_cell.status import settle
from cells.audit import ImageFact
from cells.errors import BadInput
from cells.model import Generation, ImageRef
from cells.names import CellName, id_from_text, id_text
from cells.ports import Clock, NewId, Store, Unit

URL = "http://127.0.0.1:9/image"
BASE_IMAGE = "11111111-1111-1111-1111-111111111111"


class MemoryImages:
    """The Images of api_cell.images, without bytes."""

    url = URL

    def __init__(self, clock: Clock, new_id: NewId) -> None:
        self._clock = clock
        self._new_id = new_id
        self._images: dict[str, Image] = {}
        self._add(BASE_IMAGE, name="base", owner="", status="active", size=1, visibility="public")

    def get(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def is_member(self, image_id: str, project: str) -> bool:
        return False

    def find(self, name: str) -> tuple[Image, ...]:
        return tuple(image for image in self._images.values() if image.name == name)

    def having(self, properties: Mapping[str, str], status: str = "") -> tuple[Image, ...]:
        return having(self._images.values(), properties, status)

    def create(
        self,
        *,
        name: str,
        owner: str,
        disk_format: str = "vhd",
        container_format: str = "ovf",
        min_disk: int = 0,
        min_ram: int = 0,
        properties: dict[str, str] | None = None,
    ) -> str:
        image = id_text(self._new_id())
        self._add(image, name=name, owner=owner, status="queued", size=0, properties=properties or {})
        return image

    def ref(self, image_id: str) -> ImageRef:
        return ref_to(self._images[image_id], URL)

    def delete(self, image_id: str) -> None:
        self._images.pop(image_id, None)

    def fill(self, image_id: str) -> int:
        """Data has come for an image: the HTTP status that says what became of it."""
        image = self._images.get(image_id)
        if image is None:
            return 404
        if image.status != "queued":
            return 409
        self._images[image_id] = replace(image, status="active", size=1, updated=self._clock())
        return 204

    def facts(self) -> tuple[ImageFact, ...]:
        """The images made for snapshots."""
        return tuple(
            ImageFact(image=image.id, server=id_from_text(image.properties["instance_uuid"]), status=image.status)
            for image in self._images.values()
            if "instance_uuid" in image.properties
        )

    def _add(self, id: str, **fields: Any) -> None:
        now = self._clock()
        self._images[id] = Image(id=id, created=now, updated=now, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What tenants can ask of one API cell. Each call raises what REST would turn into a 4xx."""

    api: Api
    images: MemoryImages

    def serve(self, role: ApiRole) -> None:
        """Let a daemon of the cell reach the images."""
        assert role.front is not None
        role.front.images = self.images

    def create(self, project: str, name: str, flavor: str, request: str) -> bytes:
        """The id of a new server."""
        caller = Caller(user="tenant", project=project)
        new = servers.NewServer(name=name, flavor=flavor, image=BASE_IMAGE)
        return servers.create(self.api, caller, new, request, once=f"{project}/{request}")[0].id

    def act(self, project: str, server: bytes, action: str, argument: str, request: str) -> None:
        """start, stop, reboot, hard_reboot, snapshot, resize (argument: a flavor), confirm, revert, move or delete."""
        asking = Asking(caller=Caller(user="tenant", project=project), server=server, request=request)
        doing: dict[str, Callable[[], object]] = {
            "start": lambda: actions.start(self.api, asking),
            "stop": lambda: actions.stop(self.api, asking),
            "reboot": lambda: actions.reboot(self.api, asking, hard=False),
            "hard_reboot": lambda: actions.reboot(self.api, asking, hard=True),
            "snapshot": lambda: actions.create_image(self.api, asking, request, {}),
            "resize": lambda: actions.resize(self.api, asking, argument),
            "confirm": lambda: actions.confirm_resize(self.api, asking),
            "revert": lambda: actions.revert_resize(self.api, asking),
            "move": lambda: actions.live_migrate(self.api, asking, "", None),
            "delete": lambda: actions.delete(self.api, asking),
        }
        if action not in doing:
            raise BadInput(f"no such action: {action!r}; there are: {', '.join(doing)}")
        doing[action]()

    def limit(self, projects: Iterable[str], servers: int | None) -> None:
        """What each of these projects may have from now on; None: what everybody may have."""
        for project in projects:
            if servers is None:
                quota.forget(self.api, project)
            else:
                quota.change(self.api, project, servers=servers)

    def change_flavor(self, flavor: str, times: int) -> None:
        """The flavor is made anew, with so many times the memory that it has at first."""

        def act(unit: Unit) -> None:
            first = next(each for each in FIRST_FLAVORS if each.id == flavor)
            changed = replace(first, ram_mib=first.ram_mib * times)
            unit.save(FlavorRow(id=flavor, name=first.name, flavor=changed))

        self.api.change(act)

    def status(self, server: bytes) -> str:
        """The status a tenant sees; empty when the server is gone."""
        row = self.seen(server)
        return row.status if row is not None else ""

    def seen(self, server: bytes) -> ServerRow | None:
        """The server's row now, to be put back later."""
        return self.api.read(lambda unit: unit.get(ServerRow, server))

    def rebuild(self) -> None:
        """As `celltree api rebuild` does when this cell's database was put back to a backup."""
        self.api.change(lambda unit: unit.save(*put_back(unit, Generation(), self.api.clock()).save))

    def put_back(self, old: ServerRow) -> bool:
        """A part of a restore from a backup: what is known of the server's state becomes what it was. False where that
        would say nothing, or be about another attempt."""

        def act(unit: Unit) -> bool:
            row = unit.get(ServerRow, old.id)
            if row is None or old.state is None or row.attempt != old.attempt or row.version <= old.version:
                return False
            if row.phase is not Phase.GRANTED or row.intents:
                return False
            unit.save(settle(replace(row, state=old.state, version=old.version)))
            return True

        return self.api.change(act)


def open_desk(cell: CellName, store: Store, clock: Clock, new_id: NewId, poke: Callable[[], None]) -> Desk:
    """The desk of an API cell over its store, with the first flavors."""
    with store.unit() as unit:
        seed_flavors(unit)
    images = MemoryImages(clock, new_id)
    settings = replace(Settings(cell=cell), build_time=600)
    api = Api(settings=settings, store=store, images=images, poke=poke, clock=clock, ids=new_id)
    return Desk(api=api, images=images)
