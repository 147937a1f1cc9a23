"""What the commands of every package are made of: cliff's classes with our options. Lists and values are printed as a
table, JSON or YAML (-f), by cliff."""

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cliff.command import Command as CliffCommand
from cliff.lister import Lister as CliffLister
from cliff.show import ShowOne as CliffShowOne
from rich.console import Console

from cells.config import CellConfig, load
from cells.errors import BadInput
from cells.house import system_clock
from cells.names import SECOND, Instant
from cells.tree_folder import TREE_VARIABLE, TreeFolder

Rows = tuple[Sequence[str], Iterable[Sequence[Any]]]


class Command(CliffCommand):
    """A command that does something and says so. `options` adds its arguments."""

    def say(self, text: str) -> None:
        """A line to standard output, at once."""
        self.app.stdout.write(f"{text}\n")
        self.app.stdout.flush()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.options(parser)
        return parser

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""


class Lister(CliffLister):
    """A command that prints rows."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.options(parser)
        return parser

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""


class ShowOne(CliffShowOne):
    """A command that prints the values of one thing."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.options(parser)
        return parser

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's own arguments."""


def add_tree(parser: argparse.ArgumentParser) -> None:
    """--tree: which tree folder."""
    parser.add_argument(
        "--tree",
        default="",
        metavar="DIR",
        help=f"the tree's folder, or its name under ~/.local/share/celltree (or ${TREE_VARIABLE}, or the only one)",
    )


def add_cell(parser: argparse.ArgumentParser, what: str = "the cell") -> None:
    """--tree, --cell, --config: which cell."""
    add_tree(parser)
    parser.add_argument("--cell", metavar="NAME", help=f"{what}, by name in the tree's folder")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"{what}, by its configuration file")


def tree_of(arguments: argparse.Namespace) -> TreeFolder:
    """The tree folder meant."""
    return TreeFolder.find(arguments.tree)


def config_of(arguments: argparse.Namespace) -> CellConfig:
    """The one cell meant by --cell or --config; BadInput when there is neither."""
    if arguments.config is not None:
        return load(arguments.config)
    if arguments.cell:
        return tree_of(arguments).config(arguments.cell)
    raise BadInput("name the cell with --cell NAME or --config FILE")


def configs_of(arguments: argparse.Namespace) -> tuple[CellConfig, ...]:
    """The cell meant, or every cell of the tree's folder when none is named."""
    if arguments.config is not None or arguments.cell:
        return (config_of(arguments),)
    return tree_of(arguments).configs()


def console() -> Console:
    """Where pictures are drawn; into a file or a pipe they may be wide."""
    out = Console(highlight=False, soft_wrap=True)
    return out if out.is_terminal else Console(highlight=False, soft_wrap=True, width=200)


def ago(at: Instant) -> str:
    """How long ago, in words; a dash for never."""
    if not at:
        return "-"
    seconds = max(0, system_clock() - at) / SECOND
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def clock_time(at: Instant) -> str:
    """An instant to the millisecond, UTC."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
