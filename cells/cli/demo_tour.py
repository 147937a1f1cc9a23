"""The demo's tour: what a tenant does, through the REST API, with what an operator would look at in between.

`Tour.run` shows each step as it happens and checks it; the first check that fails ends the tour.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from cells.cli import drawing
from cells.cli.demo_tree import LEAVES, TREE, DemoTree
from cells.cli.rest import Rest, RestFailed
from cells.errors import CelltreeError, Permanent
from cells.model import Capacity
from cells.names import SECOND, CellName, id_from_text
from cells.parts import part
from cells.ports import Where
from cells.rows import StoryRow

MIB = 2**20
GUEST_DISK = 256 * MIB
PATIENCE = 60.0
KNOWN_FILES = {"etc/hostname": b"demo-linux\n", "srv/known.bin": bytes(range(256)) * 256}


class Tour:
    """One tour over a running tree. `facts` is what was seen, for --json."""

    def __init__(self, tree: DemoTree, console: Console, folder: Path) -> None:
        self._tree = tree
        self._out = console
        self._folder = folder
        self._rest = Rest(tree.endpoint)
        self._begin = time.monotonic()
        self._steps: list[tuple[str, str, float]] = []
        self.facts: dict[str, Any] = {"steps": [], "ok": False}
        self._shown = 0
        self._image = ""
        self._server = ""

    def run(self) -> bool:
        """The whole tour; True when every check held."""
        try:
            self._do("tree up, capacity known", self._tree_up)
            before = self._capacities()
            self._show_tree("The tree, with what each leaf has free")
            self._do("image made and registered", self._make_image)
            self._do("server built", self._build)
            self._do("snapshot taken and read back", self._snapshot)
            self._do("resized to m1.small", self._resize)
            self._do("resize confirmed", self._confirm)
            self._do("capacity counts the server", lambda: self._counted(before))
            self._show_tree("The tree with the server on it")
            self._do("server deleted, nothing left", lambda: self._delete(before))
            self.facts["ok"] = True
        except CelltreeError as error:
            self._out.print(f"[bold red]failed:[/] {error}")
            self.facts["error"] = str(error)
        total = time.monotonic() - self._begin
        self.facts["seconds"] = round(total, 3)
        self._out.print()
        self._out.print(drawing.times([*self._steps, ("all", "verified" if self.facts["ok"] else "failed", total)]))
        return bool(self.facts["ok"])

    def _do(self, what: str, act: Callable[[], str]) -> None:
        self._out.print(f"\n[bold]{what}[/]")
        begin = time.monotonic()
        seen = act()
        seconds = time.monotonic() - begin
        self._steps.append((what, seen, seconds))
        self.facts["steps"].append({"step": what, "seen": seen, "seconds": round(seconds, 3)})
        self._say(f"[green]✓[/] {seen}")

    def _say(self, text: str) -> None:
        stamp = time.monotonic() - self._begin
        self._out.print(f"  [dim]{stamp:6.2f} s[/]  {text}", soft_wrap=True)

    # --- the steps ---

    def _tree_up(self) -> str:
        def known() -> set[CellName]:
            return {name for name, record in self._tree.records().items() if record.capacity is not None}

        found = self._rest.wait(known, lambda names: names == set(LEAVES), PATIENCE, "the capacity of every leaf")
        return f"{len(TREE)} cells, {len(found)} leaves report to both API cells"

    def _make_image(self) -> str:
        guest = self._folder / "guest"
        for name, content in KNOWN_FILES.items():
            (guest / name).parent.mkdir(parents=True, exist_ok=True)
            (guest / name).write_bytes(content)
        target = self._folder / "demo-linux.tar.gz"
        made = part("make_image")(guest, target, size=GUEST_DISK)
        self._say(f"ext4 file system of {GUEST_DISK // MIB} MiB made with mke2fs from {len(KNOWN_FILES)} known files")
        self._say(f"as a VHD, tarred and gzipped the way Glance holds it: {made.size:,} bytes")
        record = {"name": "demo-linux", "disk_format": "vhd", "container_format": "ovf", "visibility": "public"}
        self._image = self._rest.image("POST", "/images", record)["id"]
        self._rest.upload(self._image, target)
        self._is("the image", self._rest.image("GET", f"/images/{self._image}")["status"], "active")
        self._say(f"demo-linux is {self._image}")
        return f"active, {made.size:,} bytes"

    def _build(self) -> str:
        asked = {"name": "demo-1", "imageRef": self._image, "flavorRef": "1", "networks": "none"}
        self._server = self._rest.compute("POST", "/servers", {"server": asked})["server"]["id"]
        self._say(f"POST /servers answered 202: {self._server}")
        server = self._until("ACTIVE")
        self._follow()
        way = self._way()
        self._say(f"the message's way: [cyan]{way}[/]")
        self.facts["way"] = way
        leaf = self._leaf()
        running = [vm["name_label"] for vm in self._vms(leaf) if vm["power_state"] == "Running"]
        self._is("running VMs on the leaf's hosts", len(running), 1)
        self._say(f"the leaf's pool runs one VM more: {running[0]}")
        return f"ACTIVE on {_host(server)}"

    def _snapshot(self) -> str:
        asked = {"createImage": {"name": "demo-1-snapshot"}}
        image = self._act(asked)["image_id"]
        self._rest.wait(
            lambda: self._rest.image("GET", f"/images/{image}")["status"],
            lambda status: status == "active",
            PATIENCE,
            "the snapshot's image",
        )
        self._until("ACTIVE")
        self._follow()
        target = self._folder / "snapshot.tar.gz"
        self._rest.download(image, target)
        self._say(f"the VHD chain came back as {target.stat().st_size:,} bytes of tar")
        for name, content in KNOWN_FILES.items():
            self._is(f"/{name} in the snapshot", part("read_image")(target, f"/{name}") == content, True)
        return f"active, its file system holds the {len(KNOWN_FILES)} known files"

    def _resize(self) -> str:
        host = _host(self._look())
        self._act({"resize": {"flavorRef": "2"}})
        after = self._until("VERIFY_RESIZE")
        self._follow()
        self._is("flavor", after["flavor"]["original_name"], "m1.small")
        return f"VERIFY_RESIZE, from {host} to {_host(after)}"

    def _confirm(self) -> str:
        self._act({"confirmResize": None})
        after = self._until("ACTIVE")
        self._follow()
        self._is("VMs on the leaf's hosts", len(self._vms(self._leaf())), 1)
        return f"ACTIVE with {after['flavor']['ram']} MiB, the old copy is gone"

    def _counted(self, before: dict[CellName, Capacity]) -> str:
        leaf = self._leaf()
        missing = self._rest.wait(
            lambda: drawing.free_ram_mib(before[leaf]) - drawing.free_ram_mib(self._capacities()[leaf]),
            lambda gone: gone == 1024,
            PATIENCE,
            f"the capacity of {leaf}",
        )
        return f"{leaf} has {missing} MiB less, every other leaf is as before"

    def _delete(self, before: dict[CellName, Capacity]) -> str:
        leaf = self._leaf()
        self._rest.compute("DELETE", f"/servers/{self._server}")
        self._rest.wait(self._is_gone, bool, PATIENCE, "the delete")
        self._follow()
        self._is("VMs on the leaf's hosts", len(self._vms(leaf)), 0)
        self._rest.wait(
            lambda: drawing.free_ram_mib(self._capacities()[leaf]),
            lambda free: free == drawing.free_ram_mib(before[leaf]),
            PATIENCE,
            f"the capacity of {leaf}",
        )
        return "GET answers 404, no VM is left, the capacity is back"

    # --- looking ---

    def _look(self) -> Any:
        return self._rest.compute("GET", f"/servers/{self._server}")["server"]

    def _until(self, status: str) -> Any:
        """Wait for a status with nothing going on, showing each change as it is seen."""
        last: list[tuple[str, str]] = []

        def look() -> Any:
            server = self._look()
            state = (server["status"], server["OS-EXT-STS:task_state"] or "")
            if state not in last[-1:]:
                last.append(state)
                self._say(f"{state[0]}{f' ({state[1]})' if state[1] else ''}")
            return server

        def over(server: Any) -> bool:
            return server["status"] == "ERROR" or (server["status"] == status and not server["OS-EXT-STS:task_state"])

        server = self._rest.wait(look, over, PATIENCE, f"status {status}")
        if server["status"] == "ERROR" and status != "ERROR":
            raise Permanent(f"the server is in ERROR: {server.get('fault', {}).get('message')}")
        return server

    def _act(self, body: dict[str, Any]) -> Any:
        answer = self._rest.compute("POST", f"/servers/{self._server}/action", body)
        self._say(f"POST action {next(iter(body))}")
        return answer

    def _is_gone(self) -> bool:
        with suppress(RestFailed):
            self._look()
            return False
        return True

    def _is(self, what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            raise Permanent(f"{what}: {seen!r} was seen where {wanted!r} was expected")

    def _capacities(self) -> dict[CellName, Capacity]:
        records = self._tree.records()
        return {name: record.capacity for name, record in records.items() if record.capacity is not None}

    def _vms(self, leaf: CellName) -> Sequence[dict[str, Any]]:
        """Every VM on a leaf's hosts but dom0 and templates, asked of the simulator itself."""
        found: list[dict[str, Any]] = self._tree.pools[leaf].guests()
        return found

    def _story(self) -> tuple[StoryRow, ...]:
        where = Where(column="server", op="=", value=id_from_text(self._server))
        with self._tree.cell("east").store.unit(lock=False) as unit:
            return unit.find(StoryRow, where, order=("id",))

    def _follow(self) -> None:
        """Show the server's story since it was last shown."""
        story = self._story()
        for line in story[self._shown :]:
            if line.text:
                self._say(f"[dim]{line.cell}: {line.event}: {line.text}[/]")
        self._shown = len(story)

    def _way(self) -> str:
        accepted = next(line for line in self._story() if line.event == "accepted")
        down = [(str(name), int(at)) for name, at in (accepted.detail or {}).get("down", ())]
        up = list(accepted.trail)
        text = drawing.way(down, up[0] if up else None)
        return f"{text}; back {drawing.way(up, ('east', accepted.at))}" if up else text

    def _leaf(self) -> CellName:
        return next(line.cell for line in self._story() if line.event == "accepted")

    def _show_tree(self, title: str) -> None:
        now = self._tree.house.clock()
        records = self._tree.records()
        seen = {name: drawing.CellSeen(name=name, role="api") for name in TREE if not TREE[name]}
        for name, record in records.items():
            seen[name] = drawing.CellSeen(
                name=name,
                role=record.role,
                parents=tuple(TREE[name]),
                state=record.state,
                capacity=record.capacity,
                age=max(0.0, (now - record.at) / SECOND),
            )
        self._out.print(f"\n[bold]{title}[/]")
        self._out.print(drawing.tree(seen), soft_wrap=True)


def _host(server: Any) -> str:
    return str(server["OS-EXT-SRV-ATTR:hypervisor_hostname"])
