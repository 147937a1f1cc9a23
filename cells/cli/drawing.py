"""Pictures in text: the tree with its capacity, a message's way, a table of times. Values in, rich renderables out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cells.model import Capacity, Flavor
from cells.names import SECOND, CellName, Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSeen:
    """A cell as somebody at the top sees it. `age` in seconds since it was last heard, None for the looking cell."""

    name: CellName
    role: str
    parents: tuple[CellName, ...] = ()
    state: str = "enabled"
    capacity: Capacity | None = None
    age: float | None = None


def free_ram_mib(capacity: Capacity) -> int:
    """Free memory over all hosts that take builds."""
    return sum(shape.ram_mib * shape.hosts for each in capacity.classes for shape in each.shapes)


def free_vcpus(capacity: Capacity) -> int:
    return sum(shape.vcpus * shape.hosts for each in capacity.classes for shape in each.shapes)


def free_disk_gib(capacity: Capacity) -> int:
    own = sum(shape.disk_gib * shape.hosts for each in capacity.classes for shape in each.shapes if not shape.group)
    return own + sum(group.free_gib for group in capacity.groups)


def buildable(capacity: Capacity, flavor: Flavor) -> int:
    """How many servers of a flavor the free shapes can take, storage groups aside."""
    count = 0
    for each in capacity.classes:
        for shape in each.shapes:
            fits = [shape.ram_mib // flavor.ram_mib, shape.vcpus // flavor.vcpus]
            if flavor.disk_gib and not shape.group:
                fits.append(shape.disk_gib // flavor.disk_gib)
            count += shape.hosts * min(fits)
    return count


def tree(cells: Mapping[CellName, CellSeen]) -> Tree:
    """The whole tree from its API cells down. A cell with several parents hangs under each; it is drawn whole once and
    marked where it comes again."""
    drawn: set[CellName] = set()
    top = Tree(Text("celltree", style="bold"), guide_style="dim")
    children: dict[CellName, list[CellName]] = {}
    for cell in cells.values():
        for parent in cell.parents:
            children.setdefault(parent, []).append(cell.name)

    def hang(under: Tree, name: CellName) -> None:
        again = name in drawn
        drawn.add(name)
        branch = under.add(_label(cells[name], again=again))
        if not again:
            for child in sorted(children.get(name, ())):
                hang(branch, child)

    for name in sorted(name for name, cell in cells.items() if not cell.parents):
        hang(top, name)
    return top


def _label(cell: CellSeen, *, again: bool) -> Text:
    label = Text(cell.name, style="bold cyan" if cell.role == "api" else "bold" if cell.capacity else "")
    if again:
        return label + Text("  (above; it has several parents)", style="dim")
    label += Text(f"  {'API cell' if cell.role == 'api' else 'leaf' if cell.capacity else 'compute cell'}", style="dim")
    if cell.state != "enabled":
        label += Text(f"  {cell.state}", style="yellow")
    if cell.capacity is not None:
        free, total = free_ram_mib(cell.capacity), cell.capacity.total_ram_mib
        servers = cell.capacity.servers
        label += Text(
            f"  {cell.capacity.hosts} hosts  {servers} server{'' if servers == 1 else 's'}  "
            f"{free / 1024:.1f}/{total / 1024:.1f} GiB free "
        )
        label += bar(total - free, total)
    if cell.age is not None:
        label += Text(f"  {cell.age:.0f} s", style="dim")
    return label


def bar(used: int, total: int, width: int = 10) -> Text:
    """How much is used, as a bar."""
    full = round(width * used / total) if total else 0
    if used and not full:
        full = 1
    return Text("█" * full, style="magenta") + Text("░" * (width - full), style="dim")


def way(trail: Sequence[tuple[CellName, Instant]], end: tuple[CellName, Instant] | None = None) -> str:
    """A message's way through the cells, with the time of each hop: east -1.2 ms-> dfw -0.8 ms-> shared-1."""
    hops = [*trail, *((end,) if end is not None else ())]
    if not hops:
        return ""
    text: str = hops[0][0]
    for (_, left), (name, came) in pairwise(hops):
        text += f" ─{1000 * (came - left) / SECOND:.1f} ms→ {name}"
    return text


def times(rows: Iterable[tuple[str, str, float]]) -> Table:
    """A table of steps: what, how it ended, seconds."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("step")
    table.add_column("seen")
    table.add_column("seconds", justify="right")
    for what, seen, seconds in rows:
        table.add_row(what, seen, f"{seconds:.2f}")
    return table
