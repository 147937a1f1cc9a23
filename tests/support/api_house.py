"""A served API cell for tests of its front door: a store in a file or in memory, a folder of images, a clock that only
moves, and a stand-in for the daemon. The stand-in carries out each wish at once, as a willing leaf would."""

import itertools
import json
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import falcon.testing

from api_cell.http.app import Application, make_app
from api_cell.http.serve import Served, serve
from api_cell.images import FolderImages
from api_cell.quota import charge, usage_of
from api_cell.rows import ROWS, FlavorRow, GoneServerRow, Phase, QuestionRow, ServerRow
from api_cell.settings import Limits, Settings
from api_cell.status import settle
from cells import codec
from cells.decision import Remove
from cells.ids import Ids
from cells.messages import REGISTRY, Ask, AttachVolume, DetachVolume, Intent, Question, ResizeServer, SnapshotServer
from cells.model import Flavor, InstanceState, PowerState, VmState, Volume
from cells.names import SECOND
from cells.rows import WakeRow
from cells.store.sql import SqlStore
from tests.support.requests import ask
from xenapi_host.driver import Diagnostics, VolumeFacts

START = 1_790_000_000 * SECOND
# What a leaf says of an idle server.
SAID = {
    Question.CONSOLE_LOG: b"login: ",
    Question.CONSOLE_URL: b"https://host-1.invalid/console?uuid=1",
    Question.DIAGNOSTICS: json.dumps(asdict(Diagnostics(power_state=PowerState.RUNNING, cpus=(0.0,)))).encode(),
    Question.VOLUME: b"null",
    Question.HOST_SNAPSHOTS: b"[]",
}


class MovingClock:
    """Each look at it is a millisecond later."""

    def __init__(self) -> None:
        self._ticks = itertools.count(START, 1000)

    def __call__(self) -> int:
        return next(self._ticks)


class WillingDaemon:
    """Takes up every wake that is due and does at once what was wished."""

    def __init__(self, store: SqlStore, images: FolderImages, clock: Any) -> None:
        self._store, self._images, self._clock = store, images, clock
        self.volumes: set[str] = set()

    def step(self) -> int:
        """Take up all there is; gives how many wishes that were."""
        with self._store.unit() as unit:
            wakes = unit.find(WakeRow, order=("due", "id"))
            for wake in wakes:
                record = codec.unpack_record(wake.data)
                row = unit.get(ServerRow, record.server)
                if row is not None:
                    self._carry_out(unit, row, record.body)
                unit.save(Remove(row=WakeRow, key=(wake.id,)))
        return len(wakes)

    def _carry_out(self, unit: Any, row: ServerRow, wish: Intent) -> None:
        left = tuple(open_ for open_ in row.intents if open_.number != wish.number)
        now = self._clock()
        if wish.action == "server.delete":
            gone = replace(row, intents=left, status="DELETED", vm_state="deleted", task_state="", updated=now)
            unit.save(
                charge(usage_of(unit, row.project), row, None),
                GoneServerRow(id=row.id, project=row.project, updated=now, server=gone),
                Remove(row=ServerRow, key=(row.id,)),
            )
            return
        if row.phase is Phase.DELETING:
            return
        if wish.action == "server.ask":
            self._answer(unit, codec.unpack(Ask, wish.body))
            return
        after = replace(row, intents=left, finished=wish.number, updated=now, version=row.version + 1)
        unit.save(settle(self._with_effect(after, wish)))

    def _answer(self, unit: Any, question: Ask) -> None:
        """As an idle server would."""
        row = unit.get(QuestionRow, question.question)
        if row is None:
            return
        said = SAID[question.kind]
        if question.kind is Question.VOLUME and question.about in self.volumes:
            facts = VolumeFacts(id=question.about, name="data", size=2**30, attached=False)
            said = json.dumps(asdict(facts)).encode()
        unit.save(replace(row, done=True, body=zlib.compress(said)))

    def _with_effect(self, row: ServerRow, wish: Intent) -> ServerRow:
        state = row.state
        if wish.action == "place":
            state = InstanceState(
                vm_state=VmState.ACTIVE,
                power_state=PowerState.RUNNING,
                flavor=row.spec.flavor,
                host="host-1",
                launched_at=self._clock(),
            )
            return replace(row, phase=Phase.GRANTED, leaf="leaf-1", attempt=1, state=state)
        assert state is not None
        command = codec.unpack(REGISTRY[wish.action].body, wish.body)
        match wish.action:
            case "server.stop":
                state = replace(state, vm_state=VmState.STOPPED, power_state=PowerState.HALTED)
            case "server.start":
                state = replace(state, vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING)
            case "server.resize":
                assert isinstance(command, ResizeServer)
                state = replace(state, vm_state=VmState.RESIZED, flavor=command.flavor)
            case "server.confirm_resize":
                spec = replace(row.spec, flavor=state.flavor)
                return replace(row, spec=spec, resize_to=None, state=replace(state, vm_state=VmState.ACTIVE))
            case "server.revert_resize":
                state = replace(state, vm_state=VmState.ACTIVE, flavor=row.spec.flavor)
                return replace(row, resize_to=None, state=state)
            case "server.attach_volume":
                assert isinstance(command, AttachVolume)
                volume = Volume(id=command.volume, device=command.device)
                state = replace(state, volumes=(*state.volumes, volume))
            case "server.detach_volume":
                assert isinstance(command, DetachVolume)
                left = tuple(volume for volume in state.volumes if volume.id != command.volume)
                state = replace(state, volumes=left)
            case "server.snapshot":
                assert isinstance(command, SnapshotServer)
                self._images.fill(command.image.id, Bytes(b"a snapshot"))
        return replace(row, state=state)


class Bytes:
    """Some bytes to be read once, as an upload's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


@dataclass(kw_only=True)
class ApiHouse:
    """`client` asks the app in process; `daemon.step()` lets wishes have their effect."""

    store: SqlStore
    images: FolderImages
    app: Application
    daemon: WillingDaemon
    pokes: list[int]

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> falcon.testing.Result:
        return ask(self.app, method, path, body, **more)

    def an_image(self, name: str = "demo", **more: Any) -> str:
        """An active image's id."""
        more = {"owner": "local", "disk_format": "vhd", "container_format": "ovf", "visibility": "public", **more}
        image = self.images.create(name=name, **more)
        self.images.fill(image, Bytes(b"bytes of " + name.encode()))
        return image

    def a_server(self, name: str = "web", *, step: bool = True, **fields: Any) -> str:
        """A server's id; ACTIVE, unless not stepped."""
        image = fields.pop("imageRef", None) or self.an_image()
        body = {"server": {"name": name, "imageRef": image, "flavorRef": "1", "networks": "none", **fields}}
        answer = self.ask("POST", "/v2.1/servers", body, version="2.61")
        assert answer.status_code == 202, answer.text
        if step:
            self.daemon.step()
        return str(answer.json["server"]["id"])

    def server(self, server: str, version: str = "2.61") -> dict[str, Any]:
        answer = self.ask("GET", f"/v2.1/servers/{server}", version=version)
        assert answer.status_code == 200, answer.text
        return dict(answer.json["server"])

    def act(self, server: str, action: str, argument: Any = None, version: str = "2.61") -> falcon.testing.Result:
        return self.ask("POST", f"/v2.1/servers/{server}/action", {action: argument}, version=version)


FLAVORS = (
    Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1),
    Flavor(id="2", name="m1.small", vcpus=1, ram_mib=1024, disk_gib=2, extra_specs={"class": "standard"}),
    Flavor(id="3", name="m1.large", vcpus=4, ram_mib=8192, disk_gib=80),
)


@contextmanager
def an_api_house(folder: Path, *, url: str = "", **settings: Any) -> Iterator[ApiHouse]:
    """A front door with three flavors and no images yet. `url`: its database, else a file in the folder."""
    clock = MovingClock()
    ids = Ids(clock, os.urandom)
    store = SqlStore(url or f"sqlite:///{folder}/east.db", ROWS)
    try:
        store.create_all()
        with store.unit() as unit:
            unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in FLAVORS))
        images = FolderImages(folder / "images", url="http://images.invalid/image", clock=clock, ids=ids)
        pokes: list[int] = []
        # Tests ask faster than any project may.
        chosen = Settings(cell="east", **{"limits": Limits(requests_per_second=0), **settings})
        app = make_app(chosen, store, images, lambda: pokes.append(1), clock, ids, lambda secret: secret[::-1])
        yield ApiHouse(store=store, images=images, app=app, daemon=WillingDaemon(store, images, clock), pokes=pokes)
    finally:
        store.close()


@contextmanager
def served(house: ApiHouse) -> Iterator[Served]:
    """The house on a port, its daemon stepping in a thread whenever it is poked."""
    bell, over = threading.Event(), threading.Event()
    house.app.api = replace(house.app.api, poke=bell.set)

    def run() -> None:
        while not over.is_set():
            bell.wait()
            bell.clear()
            house.daemon.step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    server = serve(house.app)
    try:
        yield server
    finally:
        server.stop()
        over.set()
        bell.set()
        thread.join(10)
