"""`celltree tree`, `capacity`, `explain`: the tree as an API cell sees it, read from its database."""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from api_cell.restored import put_back
from api_cell.role import ApiSettings
from api_cell.rows import FlavorRow
from cells import codec
from cells.cli import drawing
from cells.cli.command import Command, Lister, Rows, add_cell, ago, clock_time, config_of, configs_of, console
from cells.cli.shapes import DRAWN, add_format, printed
from cells.cli.story import lines_of
from cells.config import CellConfig, fill, identity
from cells.errors import BadInput, Temporary
from cells.house import system_clock
from cells.model import BuildSpec, Flavor, Generation, ImageRef
from cells.names import SECOND, CellName
from cells.registering import open_store
from cells.rows import StoryRow
from routing.demand import demand_of
from routing.neighbourhood import Neighbourhood
from routing.place import Explanation
from routing.roster import Entry, Sum


def _api_cells(configs: Iterable[CellConfig]) -> list[CellConfig]:
    found = [config for config in configs if config.role == "api"]
    if not found:
        raise BadInput("the tree is seen from an API cell; name one with --cell, or register one")
    return found


def _mute_after(config: CellConfig) -> int:
    return int(fill(ApiSettings, config.settings, "settings").mute_after * SECOND)


def _seen_from(config: CellConfig) -> Neighbourhood:
    """What an API cell knows of the tree, by its rows."""
    known = Neighbourhood(
        config.cell, api=True, mute_after=_mute_after(config), verify=identity(config).trust.cell_record
    )
    with open_store(config) as store, store.unit(lock=False) as unit:
        known.load(unit, system_clock())
    return known


class Tree(Command):
    """Draw the tree as its API cells see it: states, ages, capacity."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "only as this API cell sees it")
        add_format(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        now = system_clock()
        cells: dict[CellName, drawing.CellSeen] = {}
        heard: dict[CellName, Entry] = {}
        parents: dict[CellName, set[CellName]] = {}
        for config in _api_cells(configs_of(parsed_args)):
            cells[config.cell] = drawing.CellSeen(name=config.cell, role="api")
            try:
                known = _seen_from(config)
            except Temporary as error:
                self.app.LOG.warning("left out: %s", error)
                continue
            for child in known.topology.children:
                parents.setdefault(child, set()).add(config.cell)
            for name in known.topology.below():
                entry = known.roster.get(name)
                cells.setdefault(name, drawing.CellSeen(name=name, role="compute", state="never heard"))
                if entry is not None and (name not in heard or entry.arrived > heard[name].arrived):
                    heard[name] = entry
                    cells[name] = _cell(entry, now, known.mute_after)
        for name, cell in cells.items():
            above = {*cell.parents, *parents.get(name, ())} & set(cells)
            cells[name] = dataclasses.replace(cell, parents=tuple(sorted(above)))
        if parsed_args.format != DRAWN:
            self.say(printed([_facts(cell) for cell in cells.values()], parsed_args.format))
            return
        console().print(drawing.tree(cells))


def _cell(entry: Entry, now: int, mute_after: int) -> drawing.CellSeen:
    record = entry.record
    silent = "" if entry.is_fresh(now, mute_after) else " silent"
    return drawing.CellSeen(
        name=record.name,
        role=record.role,
        parents=record.parents,
        state=f"{record.state}{silent}".removeprefix("enabled ") or "enabled",
        capacity=record.capacity,
        age=max(0.0, (now - entry.arrived) / SECOND),
    )


def _facts(cell: drawing.CellSeen) -> dict[str, Any]:
    return {
        "name": cell.name,
        "role": cell.role,
        "parents": list(cell.parents),
        "state": cell.state,
        "age_seconds": None if cell.age is None else round(cell.age, 3),
        "capacity": None if cell.capacity is None else codec.plain(cell.capacity),
    }


class CapacityList(Lister):
    """Capacity by leaf as an API cell knows it, then the totals of leaves heard lately and of silent ones."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "the API cell that is asked (default: the first)")
        parser.add_argument("--flavor", metavar="F", help="also how many servers of this flavor (name or id) would fit")

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        config = _api_cells(configs_of(parsed_args))[0]
        known, now = _seen_from(config), system_clock()
        fits = self._fits(config, known, parsed_args.flavor)
        header: tuple[str, ...] = ("Leaf", "State", "Heard", "Hosts", "Servers")
        header += ("RAM free MiB", "vCPUs free", "Disk free GiB")
        if fits is not None:
            header += (parsed_args.flavor,)
        rows: list[tuple[Any, ...]] = []
        leaves = known.topology.leaves()
        stale = set(known.roster.stale(now, known.mute_after))
        for name in leaves:
            entry = known.roster[name]
            only = known.roster.totals((name,), now, known.mute_after)
            state = f"{entry.record.state} silent" if name in stale else str(entry.record.state)
            rows.append(
                _line(name, state, ago(entry.arrived), only.stale if name in stale else only.fresh, fits, {name})
            )
        totals = known.roster.totals(leaves, now, known.mute_after)
        rows.append(_line("total", "heard", "", totals.fresh, fits, set(leaves) - stale))
        if totals.stale.leaves:
            rows.append(_line("total", "silent", "", totals.stale, fits, set(leaves) & stale))
        return header, rows

    def _fits(self, config: CellConfig, known: Neighbourhood, word: str | None) -> dict[CellName, int] | None:
        if not word:
            return None
        spec = BuildSpec(name="", project="", user="", flavor=_flavor(config, word), image=ImageRef(id=""))
        counts = known.candidates.buildable(demand_of(spec))
        return {entry.name: counts[slot] for slot, entry in known.candidates.leaves()}


def _flavor(config: CellConfig, word: str) -> Flavor:
    with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
        flavors = unit.all(FlavorRow)
    for row in flavors:
        if word in (row.id, row.name):
            return row.flavor
    there = ", ".join(sorted(row.name for row in flavors)) or "none yet: its front door has not been opened"
    raise BadInput(f"{config.cell} has no flavor {word!r}; there are: {there}")


def _line(
    name: str, state: str, heard: str, total: Sum, fits: Mapping[CellName, int] | None, leaves: set[CellName]
) -> tuple[Any, ...]:
    line: tuple[Any, ...] = (
        name,
        state,
        heard,
        total.hosts,
        total.servers,
        f"{total.free_ram_mib}/{total.total_ram_mib}",
        f"{total.free_vcpus}/{total.total_vcpus}",
        f"{total.free_disk_gib}/{total.total_disk_gib}",
    )
    return line if fits is None else (*line, sum(fits.get(leaf, 0) for leaf in leaves))


class Explain(Lister):
    """Say of each placement decision for a server or a request which leaves were kept, refused and chosen, and why."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("what", metavar="REQUEST|SERVER", help="a request id (req-...), or a server's id")
        add_cell(parser, "only this API cell")

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        rows: list[tuple[Any, ...]] = []
        for config in _api_cells(configs_of(parsed_args)):
            try:
                lines = lines_of(config, parsed_args.what)
            except Temporary as error:
                self.app.LOG.warning("left out: %s", error)
                continue
            for line in lines:
                rows += _verdicts(line)
        if not rows:
            raise BadInput(
                f"no API cell has decided anything about {parsed_args.what!r} yet; give a request's or a server's id"
            )
        header = ("At", "Leaf", "Verdict", "Reason", "Would fit", "Reserved", "Room", "Freshness", "Offset", "Score")
        return header, rows


class ApiRebuild(Command):
    """Say that an API cell's database was put back to a backup, before its daemons and front doors start again. What
    was being placed then is asked for at every leaf; servers asked for since come back as their leaves report them."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "the API cell")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        config = _api_cells([config_of(parsed_args)])[0]
        with open_store(config, whole=True) as store, store.unit() as unit:
            decision = put_back(unit, Generation(), system_clock())
            unit.save(*decision.save)
        self.say(f"{config.cell}: {'; '.join(decision.notes)}; start its daemons now")


def _verdicts(line: StoryRow) -> list[tuple[Any, ...]]:
    at = clock_time(line.at)
    if line.event == "refused":
        return [(at, line.cell, "declined", line.text, "", "", "", "", "", "")]
    raw = (line.detail or {}).get("explanation")
    if raw is None:
        return []
    explanation: Explanation = codec.unpack(Explanation, codec.pack(raw))
    rows: list[tuple[Any, ...]] = []
    for seen in explanation.verdicts():
        if seen.reason:
            rows.append((at, seen.leaf, "refused", seen.reason, "", "", "", "", "", ""))
            continue
        weights = (f"{seen.room:.3f}", f"{seen.freshness:.3f}", f"{seen.offset:.3f}", f"{seen.score:.3f}")
        verdict = "chosen" if seen.chosen else "kept"
        rows.append((at, seen.leaf, verdict, "", seen.buildable, seen.reserved, *weights))
    rows += [
        (at, f"{count} more", "refused" if reason else "kept", reason, "", "", "", "", "", "")
        for reason, count in explanation.left_out.items()
    ]
    return rows
