"""The stories' language: a file of commands, each with what it is to print.

    # a remark
    > build east vm1 m1.tiny
    > run 2
    +0.00 east             local.intent vm1: attempt 1: offered to dfw-1
    ...

Lines that begin with "> " are commands, all else up to the next one is expected. `pytest tests/stories --rewrite`
writes what was printed in its place; whoever changed something reviews the difference. After each command the
invariants of the whole tree are checked; `quiet` checks those that hold at rest, too. To add a verb: a method of Story
named as it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from api_cell.rows import GoneServerRow, ServerRow
from cells.decision import Decision
from cells.messages import (
    AttachVolume,
    ConfirmResize,
    DeleteServer,
    DetachVolume,
    RebootServer,
    ResizeServer,
    RevertResize,
    SnapshotServer,
    StartServer,
    StopServer,
)
from cells.model import ImageRef, Incremental, PowerState
from cells.names import SECOND, id_text
from cells.record import NO_SERVER, Received
from cells.rows import ParkedRow, StoryRow
from compute_cell.rows import HostRow, HostState, InstanceRow
from tests.support.embedded import DEMO, SMALL, TINY, Tree, make_tree
from tests.support.invariants import server_of, validate, validate_quiet
from xenapi_host import tags
from xenapi_host.facts import GIB
from xenapi_host.simulator.mishaps import kill_host, return_host
from xenapi_host.simulator.worlds import HostShape

LARGE = replace(SMALL, id="5", name="m1.large", vcpus=4, ram_mib=8192, disk_gib=8)
FLAVORS = {flavor.name: flavor for flavor in (TINY, SMALL, LARGE)}
SNAPSHOT = ImageRef(id="22222222-2222-2222-2222-222222222222", name="snapshot", url="http://127.0.0.1:9/image")
_SILENT = ("cell.hello", "local.tick", "node.ack", "server.digest")


def _value(text: str) -> float | str:
    return float(text) if text.replace(".", "", 1).isdigit() else text


class Story:
    """One run of a file: a tree, and names for its servers."""

    def __init__(self) -> None:
        self.tree: Tree | None = None
        self.names: dict[bytes, str] = {}
        self.volumes: dict[str, str] = {}
        self.images: list[str] = []
        self.lines: list[str] = []
        self.since = 0
        self.traced = True
        self.tampered = self.restored = False
        self.backups: dict[str, tuple[Any, ...]] = {}

    def play(self, text: str) -> str:
        """The same file with what was printed."""
        out: list[str] = []
        expected = False
        for line in text.splitlines():
            if line.startswith("> "):
                out += [line, *self.do(line[2:])]
                expected = True
            elif not line.strip() or line.startswith("#"):
                out.append(line)
                expected = False
            elif not expected:
                raise AssertionError(f"neither a command nor expected after one: {line!r}")
        if self.tree is not None:
            self.tree.close()
        return "\n".join(out) + "\n"

    def do(self, line: str) -> list[str]:
        """Run one command; what it prints."""
        verb, *words = line.split()
        self.lines = []
        if self.tree is not None:
            self.since = self.tree.clock.now
        act: Callable[..., None] = getattr(self, f"do_{verb}")
        act(*words)
        if self.tree is not None:
            validate(self.tree, versions=not self.tampered, rows=not self.restored)
        return [line.rstrip() for line in self.lines]

    # --- the tree ---

    def do_topology(self, *words: str) -> None:
        """topology demo | topology child:parent,parent ...   hosts=N ram=MiB SETTING=VALUE (of the leaves)"""
        options = dict(word.split("=") for word in words if "=" in word)
        shape: dict[str, Sequence[str]] = {}
        for word in words:
            if "=" not in word and word != "demo":
                name, _, above = word.partition(":")
                shape[name] = tuple(above.split(",")) if above else ()
        host = HostShape(ram_mib=int(options.get("ram", 16 * 1024)), cpu_objects=False)
        settings = {name: _value(text) for name, text in options.items() if name not in ("hosts", "ram")}
        count = int(options.get("hosts", 2))
        self.tree = make_tree(shape or DEMO, hosts=count, host=host, trace=self._trace, compute=settings)
        self.lines = []

    def do_crash(self, name: str, when: str = "", step: str = "") -> None:
        """crash CELL [before|after STEP]: kill -9 now, or around its next step of this name"""
        if not when:
            self._tree.crash(name)
            return
        self._tree.steps[name].kill(**{when: step})  # type: ignore[arg-type]

    def do_restart(self, name: str) -> None:
        self._tree.restart(name)

    def do_backup(self, cell: str) -> None:
        """The cell's database is copied, to be put back later."""
        self.backups[cell] = self._tree.back_up(cell)

    def do_put_back(self, cell: str, *words: str) -> None:
        """put_back CELL [untold]: its database becomes the copy again; its daemon starts over it. An API cell's is told
        so first, as by `celltree api rebuild`, or is not."""
        self._tree.put_back(cell, self.backups[cell], told="untold" not in words)
        self.tampered = self.restored = True

    def do_daemon(self, cell: str, daemon: str) -> None:
        """daemon CELL NAME: one more daemon of a cell, over the same store and broker"""
        self._tree.open(cell, daemon)

    def do_freeze(self, name: str, when: str = "", step: str = "", seconds: str = "") -> None:
        """freeze DAEMON, or freeze CELL before|after STEP SECONDS: the daemon that makes this step, in the middle of
        it, while the others go on"""
        tree = self._tree
        if not when:
            tree.freeze(name)
            return

        def stand_still() -> None:
            daemon = tree.turn
            tree.freeze(daemon)
            self.lines.append(f"{self._time()} {daemon} is frozen")
            tree.run(float(seconds))
            self.lines.append(f"{self._time()} {daemon} goes on")
            tree.thaw(daemon)

        tree.steps[name].strike(stand_still, **{when: step})

    def do_host(self, what: str, name: str) -> None:
        """host dies|returns NAME, host confirm_dead|enable NAME: what becomes of a host, what its administrator says"""
        for leaf, pool in self._tree.pools.items():
            for host in self._tree.rows(leaf, HostRow):
                if host.name != name:
                    continue
                if what in ("dies", "returns"):
                    ref = pool.engine.call("host.get_by_uuid", [pool.login().ref, host.uuid])
                    (kill_host if what == "dies" else return_host)(pool.engine, ref)
                    return
                state = HostState.DEAD if what == "confirm_dead" else HostState.ENABLED
                with self._tree.stores[leaf].unit() as unit:
                    unit.save(replace(host, state=state))
                return
        raise AssertionError(f"no such host: {name}")

    def do_thaw(self, name: str) -> None:
        self._tree.thaw(name)

    def do_cut(self, one: str, other: str) -> None:
        self._tree.network.cut(one, other)

    def do_heal(self) -> None:
        self._tree.network.heal()

    def do_lose(self, one: str, other: str, count: str = "1") -> None:
        self._tree.network.lose_next[one, other] += int(count)

    def do_duplicate(self, one: str, other: str, count: str = "1") -> None:
        self._tree.network.double_next[one, other] += int(count)

    def do_delay(self, one: str, other: str, count: str = "1") -> None:
        """delay CELL CELL [N]: the next bundles of this way come only after `late`"""
        self._tree.network.late_next[one, other] += int(count)

    def do_late(self) -> None:
        self._tree.network.late()

    def do_drain(self, cell: str) -> None:
        self._tree.set(cell, "state", "draining")

    def do_run(self, seconds: str, *words: str) -> None:
        """run SECONDS [quietly]: let time pass; prints what is decided, unless quietly"""
        self.traced = "quietly" not in words
        self._tree.run(float(seconds))
        self.traced = True

    def do_deliver(self) -> None:
        """What can be done without time passing."""
        self._tree.settle()

    def do_quiet(self) -> None:
        """Everything is at rest, and as it should be."""
        validate_quiet(self._tree)
        self.lines.append("quiet")

    # --- what tenants do ---

    def do_build(self, api: str, name: str, flavor: str = "m1.tiny", *hints: str) -> None:
        given = dict(hint.split("=") for hint in hints)
        for hint in ("near", "far"):
            if hint in given:
                given[hint] = ",".join(id_text(self._id(each)) for each in given[hint].split(","))
        server = self._tree.build(api, name, FLAVORS[flavor], hints=given)
        self.names[server] = name

    def do_volume(self, leaf: str, name: str, project: str = "demo") -> None:
        """volume LEAF NAME [PROJECT]: the leaf's administrator makes a disk that this project may attach"""
        session = self._tree.pools[leaf].login()
        storage = session.call("SR.get_by_uuid", self._tree.rows(leaf, HostRow)[0].sr)
        record = {
            "name_label": name,
            "name_description": "",
            "SR": storage,
            "virtual_size": str(GIB),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {tags.PROJECT: project},
        }
        self.volumes[name] = str(session.call("VDI.get_uuid", session.call("VDI.create", record)))
        session.close()

    def do_ask(self, api: str, name: str, action: str, what: str = "") -> None:
        """ask API SERVER ACTION [FLAVOR or VOLUME]"""
        self._tree.ask(api, self._id(name), self._command(action, what))

    def _command(self, action: str, what: str) -> Any:
        match action:
            case "attach":
                return AttachVolume(volume=self.volumes[what], device=8 + list(self.volumes).index(what))
            case "detach":
                return DetachVolume(volume=self.volumes[what])
            case "start":
                return StartServer()
            case "stop":
                return StopServer()
            case "reboot" | "hard-reboot":
                return RebootServer(hard=action == "hard-reboot")
            case "snapshot":
                return SnapshotServer(image=SNAPSHOT)
            case "backup":
                image = ImageRef(id=what, name=what, url=SNAPSHOT.url)
                self.images, before = [*self.images, what], tuple(self.images)
                return SnapshotServer(image=image, incremental=Incremental(bases=before, most=2))
            case "resize":
                return ResizeServer(flavor=FLAVORS[what])
            case "confirm":
                return ConfirmResize()
            case "revert":
                return RevertResize()
            case "delete":
                return DeleteServer(build_deadline=self._tree.clock.now + 600 * SECOND)
        raise AssertionError(f"no such action: {action}")

    # --- faults of other kinds ---

    def do_tamper(self, api: str, name: str, version: str = "0") -> None:
        """The tenant's view is changed behind everybody's back: stopped, at a version that is so much higher."""
        with self._tree.stores[api].inner.unit() as unit:
            row = unit.get(ServerRow, self._id(name))
            state = replace(row.state, power_state=PowerState.HALTED, host="nowhere")
            unit.save(replace(row, state=state, version=row.version + int(version)))
        self.tampered = True

    # --- what can be seen ---

    def do_show(self, what: str, *words: str) -> None:
        getattr(self, f"_show_{what}")(*words)

    def _show_servers(self) -> None:
        for api in self._tree.apis:
            for row in sorted(self._tree.rows(api, ServerRow), key=lambda row: row.id):
                state = row.state
                self._table(
                    api,
                    row.name,
                    row.status,
                    row.task_state or "-",
                    row.leaf or "-",
                    (state.host if state else "") or "-",
                    state.flavor.name if state else "-",
                )
                if row.fault:
                    self.lines.append(f"    {row.fault}")
                elif state is not None and state.fault is not None:
                    self.lines.append(f"    {state.fault.message}")
            for past in sorted(self._tree.rows(api, GoneServerRow), key=lambda past: past.id):
                self._table(api, past.server.name, past.server.status)

    def _show_truth(self) -> None:
        """The leaves' own rows."""
        for leaf in self._tree.pools:
            for row in sorted(self._tree.rows(leaf, InstanceRow), key=lambda row: row.id):
                self._table(leaf, self._name(row.id), row.phase, row.state.vm_state, row.state.host or "-")

    def _show_capacity(self) -> None:
        """What each API cell knows: room for m1.tiny at each leaf, and all together."""
        for api in self._tree.apis:
            if api not in self._tree.house.cells:
                continue
            memory = self._tree[api].role.neighbourhood  # type: ignore[attr-defined]
            totals = memory.roster.totals(list(memory.roster), self._tree.clock.now, memory.mute_after)
            fresh, stale = totals.fresh, totals.stale
            self._table(
                api,
                f"{fresh.leaves} leaves",
                f"{fresh.hosts} hosts",
                f"{fresh.servers} servers",
                f"{fresh.free_ram_mib} MiB free",
                f"stale: {stale.leaves} leaves {stale.hosts} hosts",
            )

    def _show_hosts(self) -> None:
        for leaf in self._tree.pools:
            for host in self._tree.rows(leaf, HostRow):
                self._table(leaf, host.name, host.state, f"{host.free_ram_mib} of {host.ram_mib} MiB free")

    def _show_vms(self) -> None:
        for leaf in self._tree.pools:
            hosts = {host["uuid"]: host["name_label"] for host in self._tree.objects(leaf, "host")}
            session = self._tree.pools[leaf].login()
            for vm in sorted(self._tree.vms(leaf), key=lambda vm: str(vm["name_label"])):
                at = "-"
                if vm["power_state"] == "Running":
                    at = hosts[session.call("host.get_uuid", vm["resident_on"])]
                server = server_of(vm)
                name = str(vm["name_label"])
                suffix = next((end for end in (tags.ORIGINAL_SUFFIX, tags.LOST_SUFFIX) if name.endswith(end)), "")
                memory = int(vm["memory_static_max"]) >> 20
                self._table(leaf, self._name(server) + suffix, vm["power_state"], at, f"{memory} MiB")
            session.close()

    def _show_volumes(self) -> None:
        """Every volume, and which server's running guest sees it."""
        for leaf in self._tree.pools:
            vms = {vm["uuid"]: vm for vm in self._tree.vms(leaf)}
            session = self._tree.pools[leaf].login()
            for name, volume in sorted(self.volumes.items()):
                holders = []
                for ref in session.call("VDI.get_VBDs", session.call("VDI.get_by_uuid", volume)):
                    vbd = session.call("VBD.get_record", ref)
                    server = server_of(vms[session.call("VM.get_uuid", vbd["VM"])])
                    holders.append(f"{self._name(server)} {vbd['device'] if vbd['currently_attached'] else 'off'}")
                self._table(leaf, name, ", ".join(holders) or "-")
            session.close()

    def _show_story(self, name: str) -> None:
        api = next(api for api in self._tree.apis if self._tree.row(api, ServerRow, self._id(name)))
        for line in sorted(self._tree.rows(api, StoryRow), key=lambda line: line.id):
            if line.server == self._id(name):
                way = " > ".join(cell for cell, _ in line.trail)
                self._table(line.cell, line.event, line.text, f"[{way}]" if way else "")

    def _show_parked(self) -> None:
        for cell in self._tree.configs:
            for row in self._tree.rows(cell, ParkedRow):
                self._table(cell, row.kind or "?", row.reason)

    # --- inside ---

    @property
    def _tree(self) -> Tree:
        assert self.tree is not None, "the first command is topology"
        return self.tree

    def _id(self, name: str) -> bytes:
        return next(id for id, known in self.names.items() if known == name)

    def _name(self, server: bytes | None) -> str:
        return self.names.get(server or NO_SERVER, "?")

    def _table(self, first: str, *cells: str) -> None:
        self.lines.append(f"{first:<10} " + "  ".join(f"{cell:<12}" for cell in cells))

    def _time(self) -> str:
        return f"+{(self._tree.clock.now - self.since) / SECOND:.2f}"

    def _trace(self, cell: str, received: Received, decision: Decision) -> None:
        kind = received.record.kind.name
        if self.tree is None or not self.traced or (kind.startswith(_SILENT) and not decision.notes):
            return
        server = received.record.server
        about = f" {self._name(server)}" if server != NO_SERVER else ""
        way = " > ".join([hop.cell for hop in received.trail] + [cell]) if received.trail else cell
        notes = "; ".join(decision.notes) or ("-" if server != NO_SERVER else "")
        if not notes:
            return
        if kind == "local.job_ended":
            kind = f"job {received.record.body.kind}"
        self.lines.append(f"{self._time()} {way:<24} {kind}{about}: {notes}")
