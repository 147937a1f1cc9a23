"""`celltree story`: what happened to a server, line by line, with the way of every message that told it."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from cells.cli.command import Command, add_cell, clock_time, configs_of, console
from cells.cli.drawing import way
from cells.cli.shapes import DRAWN, add_format, printed
from cells.config import CellConfig
from cells.errors import BadInput, Temporary
from cells.names import SECOND, id_from_text, id_text
from cells.ports import View, Where
from cells.registering import open_store
from cells.rows import StoryRow

Line = tuple[str, StoryRow]


class Story(Command):
    """Print every line of a server's story, or of one request, with times and ways."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("what", metavar="SERVER|REQUEST", help="a server's id, or a request id (req-...)")
        add_cell(parser, "only what this cell wrote down")
        add_format(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        lines: list[Line] = []
        for config in configs_of(parsed_args):
            try:
                lines += [(config.cell, line) for line in lines_of(config, parsed_args.what)]
            except Temporary as error:
                self.app.LOG.warning("left out: %s", error)
        if not lines:
            raise BadInput(f"no cell knows a story of {parsed_args.what!r}; give a server's id or a request's id")
        lines.sort(key=lambda line: (line[1].at, line[1].id))
        if parsed_args.format != DRAWN:
            self.say(printed([_facts(*line) for line in lines], parsed_args.format))
            return
        out = console()
        begin = lines[0][1].at
        for written, line in lines:
            out.print(_drawn(written, line, begin))


def lines_of(config: CellConfig, what: str) -> Sequence[StoryRow]:
    """The lines that a cell wrote about a server or a request."""
    with open_store(config) as store, store.unit(lock=False) as unit:
        return find_lines(unit, what)


def find_lines(unit: View, what: str) -> Sequence[StoryRow]:
    """The lines about a server (its id) or a request (any other word)."""
    try:
        where = Where(column="server", op="=", value=id_from_text(what))
    except BadInput:
        where = Where(column="request", op="=", value=what)
    return unit.find(StoryRow, where, order=("id",))


def _drawn(written: str, line: StoryRow, begin: int) -> Text:
    text = Text(f"{clock_time(line.at)} ", style="dim")
    text += Text(f"+{(line.at - begin) / SECOND:8.3f} s  ", style="")
    text += Text(f"{line.cell:<12} ", style="bold")
    text += Text(line.event, style="cyan")
    if line.text:
        text += Text(f"  {line.text}", style="")
    if line.request:
        text += Text(f"  {line.request}", style="dim")
    if down := _down(line):
        # It ended where the answer began.
        text += Text(f"\n{'':>26}asked: {way(down, line.trail[0] if line.trail else None)}", style="dim")
    if line.trail:
        text += Text(f"\n{'':>26}told: {way(line.trail, (written, line.at))}", style="dim")
    return text


def _down(line: StoryRow) -> list[tuple[str, int]]:
    down: Iterable[Any] = (line.detail or {}).get("down", ())
    return [(str(cell), int(at)) for cell, at in down]


def _facts(written: str, line: StoryRow) -> dict[str, Any]:
    return {
        "at": clock_time(line.at),
        "written_by": written,
        "cell": line.cell,
        "server": id_text(line.server),
        "request": line.request,
        "event": line.event,
        "text": line.text,
        "up": [{"cell": cell, "at": clock_time(at)} for cell, at in line.trail],
        "down": [{"cell": cell, "at": clock_time(at)} for cell, at in _down(line)],
    }
